package natsobj

import (
	"net/url"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		url  string
		want Config
		str  string
	}{
		{"nats://archive", Config{Bucket: "archive"}, "nats://archive"},
		{"nats://archive/", Config{Bucket: "archive"}, "nats://archive"},
		{"nats://My_Archive-2/a/b/", Config{Bucket: "My_Archive-2", Prefix: "a/b"}, "nats://My_Archive-2/a/b"},
		{"nats://archive/p?replicas=3&create=true", Config{Bucket: "archive", Prefix: "p", Replicas: 3, Create: true}, "nats://archive/p"},
	} {
		u, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseURL(u)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", c.url, got, err, c.want)
		}
		if s := (&Store{cfg: got}); s.String() != c.str {
			t.Errorf("%s: String is %s", c.url, s)
		}
	}
	for text, want := range map[string][]string{
		"s3://archive":                        {`scheme "s3"`},
		"nats://":                             {`bucket ""`},
		"nats://a.b":                          {`bucket "a.b"`},
		"nats://archive//x":                   {}, // slashes at the ends do not count
		"nats://archive/a//b":                 {"prefix", "empty"},
		"nats://archive/.a":                   {"prefix", "dot"},
		"nats://archive/a%20b":                {"prefix", "character"},
		"nats://user:secret@archive:4222/x":   {"NATS connection", "--server"},
		"nats://archive?replicas=many":        {"replicas=many"},
		"nats://archive?replicas=9":           {"9 replicas"},
		"nats://archive?replicas=0":           {"replicas=0"},
		"nats://archive?create=perhaps":       {"create=perhaps"},
		"nats://archive?replica=3&stream=LTX": {`"replica"`, `"stream"`, "there are replicas and create"},
		"nats://archive#x":                    {`fragment "x"`},
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParseURL(u)
		if (err == nil) != (len(want) == 0) {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", text, err, w)
			}
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q tells the password", err)
		}
	}
}

func TestNewNamesAllFaults(t *testing.T) {
	_, err := New(t.Context(), Config{Bucket: "a b", Prefix: "/x", Replicas: 7})
	for _, want := range []string{`bucket "a b"`, "prefix", "7 replicas", "no JetStream"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestAPIPrefix(t *testing.T) {
	nc := &nats.Conn{}
	plain, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	domain, err := jetstream.NewWithDomain(nc, "hub")
	if err != nil {
		t.Fatal(err)
	}
	imported, err := jetstream.NewWithAPIPrefix(nc, "js.from.acc")
	if err != nil {
		t.Fatal(err)
	}
	for want, js := range map[string]jetstream.JetStream{"$JS.API.": plain, "$JS.hub.API.": domain, "js.from.acc.": imported} {
		if got := apiPrefix(js.Options()); got != want {
			t.Errorf("prefix %s, want %s", got, want)
		}
	}
}

func TestNames(t *testing.T) {
	s := &Store{cfg: Config{Bucket: "archive"}}
	for _, name := range []string{"a", "a.ltx", "db/ltx/1/0000000000000001-0000000000000002.ltx", "a.b/c..d", "$x/(y)/z;,=@!"} {
		if got := s.nameOf(s.nameSubject(name)); got != name {
			t.Errorf("%s comes back as %s", name, got)
		}
		if !validName(name) {
			t.Errorf("%s is not valid", name)
		}
		if strings.Contains(s.nameSubject(name), "..") {
			t.Errorf("%s has an empty token", s.nameSubject(name))
		}
	}
	for prefix, want := range map[string]string{"": ">", "a": ">", "a/": "a.>", "a/b": "a.>", "a.x/b/": "a%x.b.>"} {
		if got, ok := s.namesUnder(prefix); !ok || got != "$O.archive.C.ltx-names."+want {
			t.Errorf("under %q: %s", prefix, got)
		}
	}
	for _, prefix := range []string{"/", "a//", "*/", ">/x", "a /b", ".x/"} {
		if got, ok := s.namesUnder(prefix); ok {
			t.Errorf("under %q: %s, want nothing", prefix, got)
		}
	}
}

// TestRefusals: which of the server's refusals may pass by themselves.
func TestRefusals(t *testing.T) {
	s := &Store{cfg: Config{Bucket: "archive", Replicas: 1}, stream: "OBJ_archive"}
	for code, want := range map[jetstream.ErrorCode]struct {
		status    int
		transient bool
		text      string
	}{
		10167: {429, true, "archive"},          // queue full
		10008: {503, true, "archive"},          // no leader
		10077: {503, false, "full"},            // store failed
		10047: {500, false, "full"},            // account
		10059: {404, false, "nats object add"}, // no stream
		10054: {400, false, "archive"},         // message too large
		10074: {500, false, "archive"},         // no cluster
		10039: {503, false, "no JetStream"},
	} {
		err := s.refused(&jetstream.APIError{Code: want.status, ErrorCode: code, Description: "d"})
		if transient(err) != want.transient || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%d: %v, transient %v", code, err, transient(err))
		}
	}
}
