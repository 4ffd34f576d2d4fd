package door

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"p2pnode"
)

// noticeAt is when a death notice goes out, again and again, after the death.
var noticeAt = []time.Duration{0, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond}

// spreader tells other doors that our node process's life ended, until two of
// them have heard it or the next life has begun.
type spreader struct {
	knock *Knocker
	peers func() []TrustPeer
	over  func(p2pnode.Life) bool // the next life is there
	log   zerolog.Logger
}

func (s *spreader) spread(ctx context.Context, life p2pnode.Life) {
	peers := s.peers()
	if len(peers) > noticePeers {
		peers = peers[:noticePeers]
	}
	began, acked := time.Now(), make([]bool, len(peers))
	for _, at := range noticeAt {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(began.Add(at))):
		}
		if s.over(life) || s.round(ctx, life, peers, acked) >= noticeAcks {
			return
		}
	}
}

// round tells everybody who has not acknowledged yet, side by side, and counts
// who has by its end.
func (s *spreader) round(ctx context.Context, life p2pnode.Life, peers []TrustPeer, acked []bool) int {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		count int
	)
	for i, p := range peers {
		if acked[i] {
			count++
			continue
		}
		wg.Go(func() {
			if err := s.knock.notice(ctx, p.Door, p.ID, life); err != nil {
				s.log.Debug().Err(err).Str("peer", p.Name).Msg("death notice not heard")
				return
			}
			mu.Lock()
			defer mu.Unlock()
			acked[i] = true
			if count++; count >= noticeAcks {
				cancel()
			}
		})
	}
	wg.Wait()
	return count
}
