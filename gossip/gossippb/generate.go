// Package gossippb is the wire form of first-hand observations.
package gossippb

//go:generate protoc --go_out=. --go_opt=paths=source_relative gossip.proto
