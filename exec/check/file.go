package check

import (
	"context"
	"fmt"
	"os"
	"time"
)

// askFile wants a file that the service touches again and again. One that is older
// is a missed heartbeat: the same as no answer in time.
func askFile(path string, newer time.Duration) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if age := time.Since(info.ModTime()); age > newer {
		return fmt.Errorf("no heartbeat in %s for %v: %w", path, age.Round(time.Millisecond), context.DeadlineExceeded)
	}
	return nil
}
