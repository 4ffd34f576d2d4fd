package door

import "time"

const (
	maxConns      = 16
	memberConns   = 4               // of them that are safe, of one node
	maxFrame      = 64 << 10        // of a request or an answer
	handshakeTime = 2 * time.Second // from accept to a proved certificate
	requestTime   = 5 * time.Second // for a request to arrive once proved
	answerTime    = 5 * time.Second // exec's answer, and writing ours
	maxRequests   = 64              // on one connection
	maxChainBytes = 32 << 10        // certificates that a peer presents
	holdForExec   = time.Second     // a recover waits this long for an exec that is being started
	tellEvery     = time.Second     // exec is told of refusals so often at most
	maxAway       = 512 << 10       // of each of the three files of an absence; beyond that the middle is dropped and counted
	maxHeld       = 512             // things kept
	noticePeers   = 8               // doors that are told of a death
	noticeAcks    = 2               // and how many must have heard it
	maxTrust      = 4 << 20         // bytes of trust.json
)
