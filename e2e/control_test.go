package e2e
import ("testing";"time"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)
func TestControlFresh(t *testing.T) {
	f := paths(t)
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), 1)
	a := testenv.Foreign(t, foreign.Config{Path: f.primary, DB: sqlconn.Options{Mode: "ro"}, Fresh: true})
	for range 3 { testenv.Foreign(t, foreign.Config{Path: f.primary, Runtime: foreign.Python, DB: sqlconn.Options{Mode: "rw"}, Fresh: true})}
	for end := time.Now().Add(20*time.Second); time.Now().Before(end); {
		transfers(t, teller, 1)
		if v := a.Report().Violation; v != nil { t.Fatal(v, a.Report().Checks) }
		select { case <-a.Done(): t.Fatal(a.Err(), a.Report()); default: }
	}
	t.Logf("%+v", a.Report())
}
