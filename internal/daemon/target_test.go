package daemon

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestParseTargets(t *testing.T) {
	dir := t.TempDir()
	app := filepath.Join(dir, "app.db")
	got, err := ParseTargets([]string{app, "crm=" + filepath.Join(dir, "my file.sqlite")})
	if err != nil || len(got) != 2 || got[0] != (Target{"app", app}) || got[1].DB != "crm" {
		t.Fatalf("targets %v, %v", got, err)
	}
	if want := filepath.Join(dir, ".app.db-ltx"); got[0].StateDir() != want {
		t.Errorf("state directory %s, want %s", got[0].StateDir(), want)
	}

	for name, tt := range map[string]struct {
		args []string
		text string
	}{
		"none":        {nil, "want [NAME=]PATH"},
		"bad name":    {[]string{"a.b=x.db"}, `"a.b"`},
		"no name":     {[]string{"my file.db"}, "NAME="},
		"no path":     {[]string{"app="}, "no path"},
		"empty":       {[]string{""}, "no path"},
		"path twice":  {[]string{"a=" + app, app}, "twice"},
		"both faults": {[]string{"a.b=x.db", "c d=y.db"}, `"c d"`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseTargets(tt.args); Code(err) != ExitUsage || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v (code %d), want %q", err, Code(err), tt.text)
			}
		})
	}
}

func TestDistinct(t *testing.T) {
	same := []Target{{"app", "/a/app.db"}, {"app", "/b/app.db"}}
	if err := Distinct(same); Code(err) != ExitUsage || !strings.Contains(err.Error(), "/b/app.db") {
		t.Errorf("error %v", err)
	}
	if err := Distinct(same[:1]); err != nil {
		t.Error(err)
	}
}

func FuzzParseTargets(f *testing.F) {
	f.Add("app=/x/app.db")
	f.Add("=")
	f.Fuzz(func(t *testing.T, arg string) {
		got, err := ParseTargets([]string{arg})
		if err == nil && (len(got) != 1 || got[0].DB == "" || !filepath.IsAbs(got[0].Path)) {
			t.Errorf("%q gives %v", arg, got)
		}
	})
}
