package store

import (
	"crypto/ed25519"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"p2pnode"
)

// Config of a Store.
type Config struct {
	// Path of the file. One process at a time: a second one waits for the lock, and
	// then works in memory until it gets it.
	Path string
	// Key signs this node's reports; its public half is their origin.
	Key ed25519.PrivateKey
	// Cluster is the cluster's ID. A file with the reports of another one is moved
	// aside: they are nobody's business here.
	Cluster string
	// Chain is this node's certificates, leaf first, without the root. They go with
	// its reports, so that also a node that comes when the origin is long gone
	// knows that it was a member.
	Chain func() [][]byte
	// Certified says whose certificates a chain is, and fails for one that is not of
	// this cluster. It is not asked about expiry: who was a member may have reported.
	// nil takes every signature for a member's.
	Certified func(chain [][]byte) (peer.ID, error)
	// SealTo (X25519, 32 bytes) is the cluster's reader key, to which excerpts are
	// sealed. Empty: excerpts are dropped, never stored in the clear.
	SealTo []byte
	// Stored is called for each report that is new here, own or not, once it is
	// durable, or in memory while the disk does not work; in order, on one
	// goroutine. It must not call the store. May be nil.
	Stored func(p2pnode.Report)
	// Keep and MaxBytes bound what is kept: 0 means 7 days and 200 MB. The last
	// incident of each thing and the newest repairs on each node stay.
	Keep     time.Duration
	MaxBytes int64

	Log     zerolog.Logger
	Metrics prometheus.Registerer
}

func (c *Config) validate() error {
	if c.Path == "" || len(c.Key) != ed25519.PrivateKeySize {
		return errors.New("store: path and key are needed")
	}
	if c.Keep == 0 {
		c.Keep = defaultKeep
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultBytes
	}
	if c.Chain == nil {
		c.Chain = func() [][]byte { return nil }
	}
	return nil
}
