package generations

import (
	"testing"

	"github.com/ltxstream/ltxstream/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
