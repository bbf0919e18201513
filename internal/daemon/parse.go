package daemon

import (
	"errors"
	"io"
	"slices"

	"github.com/alecthomas/kong"
)

// Parsed is a command line that was understood.
type Parsed struct {
	*kong.Context
	Config *ConfigFile // nil without --config
}

// ErrHelped is returned by Parse when --help or --version was all that was
// asked for; it is printed already.
var ErrHelped = errors.New("help was printed")

// Parse reads args, the environment, and the file that --config names, into
// the struct cli points to. extra are configuration keys that are no flags.
// Faults have exit code 2; nothing is printed but help.
func Parse(cli any, args []string, stdout, stderr io.Writer, extra []string, options ...kong.Option) (*Parsed, error) {
	p := &Parsed{}
	options = append(options,
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { panic(ErrHelped) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.UsageOnError(),
		kong.WithBeforeResolve(func(kctx *kong.Context) error { return p.load(kctx, extra) }),
	)
	parser, err := kong.New(cli, options...)
	if err != nil {
		return nil, err
	}
	if p.Context, err = parse(parser, args); err != nil {
		return nil, asUsage(err, parser.Model.Name)
	}
	return p, nil
}

// load hands the configuration file to kong once --config is known.
func (p *Parsed) load(kctx *kong.Context, extra []string) error {
	path := configPath(kctx)
	if path == "" {
		return nil
	}
	c, err := ReadConfig(path, extra...)
	if err != nil {
		return err
	}
	if err := c.Check(allFlags(kctx.Model.Node)); err != nil {
		return err
	}
	kctx.AddResolver(c)
	p.Config = c
	return nil
}

// allFlags are those of every command: one file may serve them all.
func allFlags(n *kong.Node) []*kong.Flag {
	flags := slices.Clone(n.Flags)
	for _, child := range n.Children {
		flags = append(flags, allFlags(child)...)
	}
	return flags
}

func configPath(kctx *kong.Context) string {
	for _, f := range kctx.Flags() {
		if f.Name == "config" {
			s, _ := kctx.FlagValue(f).(string)
			return s
		}
	}
	return ""
}

func parse(parser *kong.Kong, args []string) (kctx *kong.Context, err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != ErrHelped {
				panic(r)
			}
			err = ErrHelped
		}
	}()
	return parser.Parse(args)
}

func asUsage(err error, command string) error {
	if errors.Is(err, ErrHelped) {
		return err
	}
	if e, ok := errors.AsType[*ExitError](err); ok {
		return e // kong's own wrapping has an exit code of another meaning
	}
	return Exit(ExitUsage, err, "nothing was done; see "+command+" --help")
}
