package natsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	clusterSize = 3
	probeStream = "READY" // created with three replicas and deleted again, to see that the cluster works
)

// Cluster is three servers that replicate JetStream. Not safe for concurrent use.
type Cluster struct{ nodes []*Server }

// StartCluster runs three nodes in this process, their stores in dir, and returns once a stream on three replicas can be made.
// base gives the settings of all nodes; its Name, Dir, ports and routes are replaced.
func StartCluster(ctx context.Context, dir string, base Config) (*Cluster, error) {
	return startCluster(ctx, dir, base, startLocal)
}

// StartClusterProcesses is StartCluster with a child process for each node: these can be killed.
func StartClusterProcesses(ctx context.Context, dir string, base Config) (*Cluster, error) {
	return startCluster(ctx, dir, base, startChild)
}

func startCluster(ctx context.Context, dir string, base Config, run func(context.Context, Config) (runner, error)) (*Cluster, error) {
	var errs []error
	for attempt := range 3 { // a port chosen beforehand may be taken by the time it is used
		c, err := tryCluster(ctx, filepath.Join(dir, fmt.Sprint(attempt)), base, run)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("start cluster: %w", errors.Join(errs...))
}

func tryCluster(ctx context.Context, dir string, base Config, run func(context.Context, Config) (runner, error)) (*Cluster, error) {
	ports, err := freePorts(2 * clusterSize)
	if err != nil {
		return nil, err
	}
	base.Cluster = "testenv"
	for _, p := range ports[clusterSize:] {
		base.Routes = append(base.Routes, fmt.Sprintf("127.0.0.1:%d", p))
	}
	c := &Cluster{}
	for i := range clusterSize {
		cfg := base
		cfg.Name = fmt.Sprintf("n%d", i+1)
		cfg.Dir = filepath.Join(dir, cfg.Name)
		cfg.Port, cfg.ClusterPort = ports[i], ports[clusterSize+i]
		s, err := start(ctx, cfg, run)
		if err != nil {
			return nil, errors.Join(err, c.Stop(ctx))
		}
		c.nodes = append(c.nodes, s)
	}
	if err := c.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, c.Stop(ctx))
	}
	return c, nil
}

// freePorts returns n ports that were free a moment ago.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find port: %w", err)
		}
		defer ln.Close() // all held until the end, so that they differ
		ports = append(ports, ln.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// Nodes are the three servers.
func (c *Cluster) Nodes() []*Server { return c.nodes }

// URL lists all nodes, as clients take it.
func (c *Cluster) URL() string {
	var urls []string
	for _, n := range c.nodes {
		urls = append(urls, n.URL())
	}
	return strings.Join(urls, ",")
}

// Stop ends all nodes.
func (c *Cluster) Stop(ctx context.Context) error {
	var errs []error
	for _, n := range c.nodes {
		errs = append(errs, n.Stop(ctx))
	}
	return errors.Join(errs...)
}

// WaitReady returns once every running node serves JetStream and a stream on three replicas (fewer nodes running: on as many)
// can be created.
func (c *Cluster) WaitReady(ctx context.Context) error {
	return c.with(func(js jetstream.JetStream) error {
		return retry(ctx, func(ctx context.Context) error {
			_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: probeStream, Replicas: c.running()})
			if err != nil {
				return err
			}
			return js.DeleteStream(ctx, probeStream)
		})
	})
}

func (c *Cluster) running() (n int) {
	for _, s := range c.nodes {
		if s.Running() {
			n++
		}
	}
	return n
}

// Leader returns the node that leads the stream now.
func (c *Cluster) Leader(ctx context.Context, stream string) (*Server, error) {
	info, err := c.waitInfo(ctx, stream, func(*jetstream.StreamInfo) bool { return true })
	if err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		if n.cfg.Name == info.Cluster.Leader {
			return n, nil
		}
	}
	return nil, fmt.Errorf("find leader of %s: no node %q", stream, info.Cluster.Leader)
}

// WaitCurrent returns once the stream has a leader and all its replicas are there and caught up.
func (c *Cluster) WaitCurrent(ctx context.Context, stream string) error {
	_, err := c.waitInfo(ctx, stream, func(i *jetstream.StreamInfo) bool {
		for _, r := range i.Cluster.Replicas {
			if !r.Current || r.Offline {
				return false
			}
		}
		return true
	})
	return err
}

// waitInfo returns the stream's info once it has a leader and cond holds.
func (c *Cluster) waitInfo(ctx context.Context, stream string, cond func(*jetstream.StreamInfo) bool) (info *jetstream.StreamInfo, err error) {
	err = c.with(func(js jetstream.JetStream) error {
		return retry(ctx, func(ctx context.Context) error {
			s, err := js.Stream(ctx, stream)
			if err != nil {
				return err
			}
			info = s.CachedInfo()
			if info.Cluster == nil || info.Cluster.Leader == "" || !cond(info) {
				return errors.New("no leader, or replicas behind")
			}
			return nil
		})
	})
	return info, err
}

// StopLeader stops the node that leads the stream, in an orderly way, and returns it.
func (c *Cluster) StopLeader(ctx context.Context, stream string) (*Server, error) {
	n, err := c.Leader(ctx, stream)
	if err != nil {
		return nil, err
	}
	return n, n.Stop(ctx)
}

// KillLeader kills the process that leads the stream and returns the node; ErrNotKillable for nodes in this process.
func (c *Cluster) KillLeader(ctx context.Context, stream string) (*Server, error) {
	n, err := c.Leader(ctx, stream)
	if err != nil {
		return nil, err
	}
	return n, n.Kill()
}

// with connects for the duration of f.
func (c *Cluster) with(f func(jetstream.JetStream) error) error {
	opts := []nats.Option{nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond)}
	if u := c.nodes[0].cfg.Users; len(u) > 0 {
		opts = append(opts, nats.UserInfo(u[0].Name, u[0].Password)) // the first user must be allowed to administrate
	}
	nc, err := nats.Connect(c.URL(), opts...)
	if err != nil {
		return fmt.Errorf("connect to cluster: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("connect to cluster: %w", err)
	}
	return f(js)
}

// retry calls f, each time with a short deadline, until it succeeds or ctx ends.
func retry(ctx context.Context, f func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := f(short)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		}
	}
}
