// Package overlaypb is the wire form of what nodes say to each other directly.
package overlaypb

//go:generate protoc --go_out=. --go_opt=paths=source_relative overlay.proto members.proto
