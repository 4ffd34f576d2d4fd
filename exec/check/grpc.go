package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// askGRPC calls grpc.health.v1.Health/Check over cleartext HTTP/2, as
// https://github.com/grpc/grpc/blob/master/doc/health-checking.md has it, and wants
// SERVING. Two messages of one field each are not worth a library of 5 MB.
//
//	request  1: string service    response  1: enum status (1 is SERVING)
//
// Either is framed by one byte (0: not compressed) and its length in four.
func askGRPC(ctx context.Context, addr, service string) error {
	var d net.Dialer
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols, DialContext: d.DialContext, DisableCompression: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/grpc.health.v1.Health/Check", bytes.NewReader(frameGRPC(service)))
	if err != nil {
		return err
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"p2pnode-check"}}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/grpc") {
		return fmt.Errorf("%s speaks no gRPC: %s", addr, resp.Status)
	}
	// An error without a message has its status in the headers.
	if code := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status"); code != "0" {
		return fmt.Errorf("%s answers with gRPC status %s: %.80s", addr, code, resp.Trailer.Get("Grpc-Message")+resp.Header.Get("Grpc-Message"))
	}
	status, err := healthStatus(body)
	if err != nil {
		return fmt.Errorf("%s: %w", addr, err)
	}
	if status != 1 {
		return fmt.Errorf("%s says %s", addr, healthNames[status])
	}
	return nil
}

var healthNames = map[uint64]string{0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}

func frameGRPC(service string) []byte {
	var m []byte
	if service != "" {
		m = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), service)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
}

var errHealth = errors.New("the answer is no HealthCheckResponse")

// healthStatus reads the status of a framed HealthCheckResponse.
func healthStatus(body []byte) (status uint64, err error) {
	if len(body) < 5 || body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) {
		return 0, errHealth
	}
	for m := body[5:]; len(m) > 0; {
		number, kind, n := protowire.ConsumeTag(m)
		if n < 0 {
			return 0, errHealth
		}
		size := protowire.ConsumeFieldValue(number, kind, m[n:])
		if size < 0 {
			return 0, errHealth
		}
		if number == 1 && kind == protowire.VarintType {
			status, _ = protowire.ConsumeVarint(m[n:])
		}
		m = m[n+size:]
	}
	return status, nil
}
