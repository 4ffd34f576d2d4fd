package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// demoWebCommand is the small web service that the demo's hosts keep alive. It
// answers with its pid, so that whoever asks sees which copy answered, and
// POST /deadlock makes it what real programs sometimes become: a process with an
// open port that never answers again.
func (a *app) demoWebCommand() *cobra.Command {
	var port int
	cmd := &cobra.Command{
		Use: "demo-web", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return demoWeb(cmd.Context(), port) },
	}
	cmd.Flags().IntVar(&port, "port", 0, "port on 127.0.0.1")
	return cmd
}

func demoWeb(ctx context.Context, port int) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	say := func(format string, args ...any) {
		fmt.Printf(time.Now().Format("15:04:05.000 ")+format+"\n", args...)
	}
	var mu sync.Mutex
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(w, os.Getpid())
	})
	mux.HandleFunc("POST /deadlock", func(w http.ResponseWriter, _ *http.Request) {
		say("worker 1 holds the lock and waits for worker 2, who waits for the lock")
		mu.Lock()
		fmt.Fprintln(w, "deadlocked")
	})
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	say("listening on %s, pid %d, password=not-for-logs", ln.Addr(), os.Getpid())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	select {
	case err = <-served:
	case <-ctx.Done():
		say("asked to stop")
		server.Close()
		<-served
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
