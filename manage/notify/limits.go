package notify

import "time"

// Limits of this package.
const (
	maxThings  = 1024               // whose stories are followed; the one that was heard of longest ago goes first
	maxQueue   = 256                // facts that wait to be judged
	maxWaiting = 64                 // notices that wait for one sink
	tooOld     = 10 * time.Minute   // a story that ended longer ago is history, not news
	keptOpen   = 7 * 24 * time.Hour // a story without an end is remembered
	quiet      = time.Minute        // between two words of one kind about one thing
	sameRow    = 10 * time.Second   // a failure so soon after a repair is the same story
	attempt    = 10 * time.Second   // one run, one POST
	giveUp     = 10 * time.Minute   // of trying to deliver one notice
	firstPause = time.Second        // before the second try
	mostPause  = time.Minute
	look       = 5 * time.Second // at pending words, this host and the configuration
	maxOutput  = 1 << 10         // of a program that failed, for the log
)
