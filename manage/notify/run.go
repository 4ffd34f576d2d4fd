package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	osexec "os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"

	"p2pnode"
	"p2pnode/exec"
)

// Config of a Notifier.
type Config struct {
	// Dir is the data folder, Node the name of this host.
	Dir, Node string
	// Degraded says what of this host does not work as it should; nil asks nobody. It
	// is called every few seconds, only while somebody wants to be told.
	Degraded func(ctx context.Context) []string
	Log      zerolog.Logger
}

// Notifier tells somebody outside. Its methods may be called from any goroutine and
// never wait.
type Notifier struct {
	cfg   Config
	born  time.Time
	core  *core
	inbox chan func(now time.Time) []Notice

	mu     sync.Mutex // guards counts
	counts map[string]uint64
}

// New makes a Notifier; Run is its life.
func New(cfg Config) *Notifier {
	return &Notifier{cfg: cfg, born: time.Now(), core: newCore(cfg.Node), inbox: make(chan func(time.Time) []Notice, maxQueue), counts: map[string]uint64{}}
}

// Incident is told how an incident stands whenever that changes.
func (n *Notifier) Incident(i p2pnode.Incident) {
	n.hand(func(now time.Time) []Notice { return n.core.incident(now, i) })
}

// Brake is told when the brake goes on or off.
func (n *Notifier) Brake(b p2pnode.BrakeState) {
	n.hand(func(now time.Time) []Notice { return []Notice{n.core.brake(now, b)} })
}

func (n *Notifier) hand(f func(time.Time) []Notice) {
	select {
	case n.inbox <- f:
	default:
		n.count("notify-dropped")
	}
}

// Counters are drops and failed deliveries, by reason.
func (n *Notifier) Counters() map[string]uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.counts)
}

func (n *Notifier) count(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts[what]++
}

// Run judges and delivers until ctx ends; deliveries under way are cut off then.
func (n *Notifier) Run(ctx context.Context) error {
	out := outlets{n: n, open: map[string]*outlet{}}
	defer out.close()
	tick := time.NewTicker(look)
	defer tick.Stop()
	told, err := recall(n.cfg.Dir, n.born)
	if err != nil {
		n.cfg.Log.Warn().Err(err).Msg("what was told before cannot be read; what is known from now on is told")
	}
	n.core.remember(told)
	out.follow(ctx, load(n.cfg.Dir))
	if len(out.open) > 0 {
		n.keep() // since when this node tells
	}
	for {
		var notices []Notice
		select {
		case <-ctx.Done():
			return nil
		case f := <-n.inbox:
			notices = f(time.Now())
		case now := <-tick.C:
			out.follow(ctx, load(n.cfg.Dir))
			notices = n.core.tick(now)
			if out.wants(Degraded) && n.cfg.Degraded != nil {
				notices = append(notices, n.core.host(now, n.cfg.Degraded(ctx))...)
			}
		}
		for _, notice := range notices {
			out.send(notice)
		}
		if len(notices) > 0 && len(out.open) > 0 {
			n.keep()
		}
	}
}

// keep writes down what was told. Without it a later life tells some of it again,
// which is better than to be silent.
func (n *Notifier) keep() {
	if err := n.core.memory().save(n.cfg.Dir); err != nil {
		n.count("notify-unsaved")
		n.cfg.Log.Warn().Err(err).Msg("what was told is not saved")
	}
}

// outlets are the sinks that are declared now, each with its own queue and
// goroutine: a slow one holds up nobody else.
type outlets struct {
	n    *Notifier
	open map[string]*outlet
	work sync.WaitGroup
}

type outlet struct {
	sink  Sink
	queue chan Notice
	end   context.CancelFunc
}

// follow opens sinks that are new and closes those that are no longer declared.
func (o *outlets) follow(ctx context.Context, sinks []Sink) {
	now := map[string]bool{}
	for _, s := range sinks {
		now[s.key()] = true
		if o.open[s.key()] != nil {
			continue
		}
		life, end := context.WithCancel(ctx)
		x := &outlet{sink: s, queue: make(chan Notice, maxWaiting), end: end}
		o.open[s.key()] = x
		o.work.Go(func() { o.n.deliverAll(life, x) })
	}
	for key, x := range o.open {
		if !now[key] {
			x.end()
			delete(o.open, key)
		}
	}
}

func (o *outlets) wants(e Event) bool {
	for _, x := range o.open {
		if x.sink.wants(e) {
			return true
		}
	}
	return false
}

func (o *outlets) send(notice Notice) {
	for _, x := range o.open {
		if !x.sink.wants(notice.Event) {
			continue
		}
		select {
		case x.queue <- notice:
		default:
			o.n.count("notify-dropped")
		}
	}
}

func (o *outlets) close() {
	for _, x := range o.open {
		x.end()
	}
	o.work.Wait()
}

func (n *Notifier) deliverAll(ctx context.Context, x *outlet) {
	for {
		select {
		case <-ctx.Done():
			return
		case notice := <-x.queue:
			n.deliver(ctx, x.sink, notice)
		}
	}
}

// deliver tries until it worked or ten minutes are over.
func (n *Notifier) deliver(ctx context.Context, s Sink, notice Notice) {
	body, err := json.Marshal(notice)
	if err != nil {
		return
	}
	body = append(body, '\n')
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = firstPause, mostPause
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		once, cancel := context.WithTimeout(ctx, attempt)
		defer cancel()
		if s.Webhook != "" {
			return struct{}{}, post(once, s.Webhook, body)
		}
		return struct{}{}, run(once, s.Run, notice.Event, body)
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(giveUp), backoff.WithNotify(func(err error, next time.Duration) {
		n.cfg.Log.Warn().Err(err).Str("event", string(notice.Event)).Dur("again_in", next).Msg("notice not delivered")
	}))
	if err != nil && ctx.Err() == nil {
		n.count("notify-given-up")
		n.cfg.Log.Error().Err(err).Str("event", string(notice.Event)).Msg("notice given up")
	}
}

// post's errors never show the URL: it may hold a secret.
func post(ctx context.Context, to string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return backoff.Permanent(errors.New("the webhook's URL cannot be used"))
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "p2pnode")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the webhook does not answer: %w", bare(err))
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, maxOutput))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the webhook answers %s", resp.Status)
	}
	return nil
}

// bare takes the URL out of what net/http says.
func bare(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// run starts a program of this host in a session of its own, with the notice on its
// stdin; what takes too long is killed with all that it started.
func run(ctx context.Context, argv []string, e Event, body []byte) error {
	cmd := osexec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"P2PNODE_EVENT=" + string(e)}
	exec.Foreign(cmd)
	var said capped
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(body), &said, &said
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, bytes.TrimSpace(said.b))
	}
	return nil
}

// capped keeps the first bytes that are written to it.
type capped struct{ b []byte }

func (c *capped) Write(b []byte) (int, error) {
	c.b = append(c.b, b[:min(len(b), maxOutput-len(c.b))]...)
	return len(b), nil
}
