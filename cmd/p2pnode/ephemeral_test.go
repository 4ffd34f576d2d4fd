package main

import (
	"bufio"
	"strings"
	"testing"
)

// As containers of docker 20.10 and podman 4 see their mounts, cut to what counts.
const mounts = `
100 99 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/l
101 100 0:52 / /proc rw - proc proc rw
102 100 0:53 / /dev rw - tmpfs tmpfs rw
103 100 8:1 /var/lib/docker/volumes/one/_data /named rw - ext4 /dev/sda1 rw
104 100 8:1 /var/lib/docker/volumes/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/_data /anonymous rw - ext4 /dev/sda1 rw
105 100 0:60 / /memory rw - tmpfs tmpfs rw
106 100 8:1 /srv/data /memory/but/bound rw - ext4 /dev/sda1 rw
107 100 8:1 /srv/first /twice rw - ext4 /dev/sda1 rw
108 100 0:61 / /twice rw - tmpfs tmpfs rw
`

func TestPassing(t *testing.T) {
	for dir, want := range map[string]bool{
		"/var/lib/p2pnode": true, "/": true, "/namedropped": true, // the container's own
		"/named": false, "/named/p2pnode": false,
		"/anonymous": true, "/memory": true, "/memory/but": true, "/memory/but/bound/p2pnode": false,
		"/twice": true,
	} {
		m, ok := mountOf(bufio.NewScanner(strings.NewReader(mounts)), dir)
		if !ok || m.passing() != want {
			t.Errorf("%s: %+v, passing %v, want %v", dir, m, m.passing(), want)
		}
	}
	if _, ok := mountOf(bufio.NewScanner(strings.NewReader("rubbish")), "/"); ok {
		t.Error("rubbish is a mount")
	}
	if passing(t.TempDir()) {
		t.Error("a test that is not pid 1 is ephemeral")
	}
}
