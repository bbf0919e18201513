package natsserver

import (
	"net/url"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Config says how a server runs. It travels to child processes as JSON.
type Config struct {
	Name        string        `json:"name"`
	Dir         string        `json:"dir"`          // JetStream's store; required unless NoJetStream
	Port        int           `json:"port"`         // 0 means a free one
	NoJetStream bool          `json:"no_jetstream"` //
	SyncAlways  bool          `json:"sync_always"`  // fsync before each acknowledgement; else the server's lazy default
	SyncEvery   time.Duration `json:"sync_every"`   // fsync interval when not always; 0 means the server's default
	MaxPayload  int32         `json:"max_payload"`  // 0 means the server's default, 1 MiB
	MaxStore    int64         `json:"max_store"`    // bytes; 0 means the server's default
	Domain      string        `json:"domain"`       // JetStream domain
	Users       []User        `json:"users"`        // none means that anybody may do anything

	Cluster     string   `json:"cluster"` // name; "" means no cluster
	ClusterPort int      `json:"cluster_port"`
	Routes      []string `json:"routes"` // host:port of all nodes
}

// User is a user of the one account, with what they may publish and subscribe to. nil means everything.
type User struct {
	Name      string   `json:"name"`
	Password  string   `json:"password"`
	Publish   []string `json:"publish"`
	Subscribe []string `json:"subscribe"`
}

func (c Config) options() *server.Options {
	o := &server.Options{
		ServerName: c.Name, Host: "127.0.0.1", Port: c.Port, NoLog: true, NoSigs: true, DisableJetStreamBanner: true,
		JetStream: !c.NoJetStream, StoreDir: c.Dir, JetStreamDomain: c.Domain, JetStreamMaxStore: c.MaxStore,
		SyncAlways: c.SyncAlways, SyncInterval: c.SyncEvery, MaxPayload: c.MaxPayload, Users: c.users(),
	}
	if c.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	if c.Cluster != "" {
		o.Cluster = server.ClusterOpts{Name: c.Cluster, Host: "127.0.0.1", Port: c.ClusterPort, PoolSize: -1}
		for _, r := range c.Routes {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: r})
		}
	}
	return o
}

func (c Config) users() []*server.User {
	var users []*server.User
	for _, u := range c.Users {
		p := &server.Permissions{}
		if u.Publish != nil {
			p.Publish = &server.SubjectPermission{Allow: u.Publish}
		}
		if u.Subscribe != nil {
			p.Subscribe = &server.SubjectPermission{Allow: u.Subscribe}
		}
		users = append(users, &server.User{Username: u.Name, Password: u.Password, Permissions: p})
	}
	return users
}
