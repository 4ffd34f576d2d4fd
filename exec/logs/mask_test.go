package logs

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestMaskLeavesHarmlessLines(t *testing.T) {
	for _, s := range []string{
		"listening on 127.0.0.1:8080",
		"basic authentication failed",
		"bearer authentication is off",
		"digest verification failed",
		"password changed for user bob",
		"Unexpected token '<' at line 3",
		"12 tests passed, 0 failed",
		"passed: 12",
		"GET https://example.org:8443/path/@me 200",
		"key not found: web",
		"panic: runtime error: invalid memory address",
		"goroutine 1 [running]:",
		"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		"commit 0123456789abcdef0123456789abcdef01234567",
		"id=550e8400-e29b-41d4-a716-446655440000 took=3ms",
		"monkey=banana bypass=1 compass=north",
		"docker run -u 1000:1000 image",
		"-----BEGIN CERTIFICATE-----",
	} {
		if got, n := Mask(s); got != s || n != 0 {
			t.Errorf("Mask(%q) = %q, %d", s, got, n)
		}
	}
}

// The last line of a key is short; it goes with the lines above it.
func TestMaskKnowsTheEndOfAKey(t *testing.T) {
	full := strings.Repeat("Ab3/", 16)
	for _, lines := range [][]string{
		{"-----BEGIN PRIVATE KEY-----", full, full, "c2hvcnQ=", "-----END PRIVATE KEY-----", "ready"},
		{full, "c2hvcnQ=", "-----END PRIVATE KEY-----", "ready"},
		{"-----BEGIN EC PRIVATE KEY-----", "c2hvcnQ=", "-----END EC PRIVATE KEY-----", "ready"},
	} {
		out, _ := maskLines(lines)
		text := strings.Join(out, "\n")
		if strings.Contains(text, "Ab3/") || strings.Contains(text, "c2hv") || out[len(out)-1] != "ready" {
			t.Errorf("%q became %q", lines, out)
		}
	}
}

// maskByAll tries each shape on each line, as Mask would if nothing were known of a
// line before.
func maskByAll(s string) (string, int) {
	n := 0
	for i := range shapes {
		out, found := maskOne(s, &shapes[i])
		s, n = out, n+found
	}
	return s, n
}

// What Mask leaves out for speed finds nothing: each shape's own lines, whole and in
// pieces, come out as they would if every shape were tried.
func TestMaskLeavesNothingOut(t *testing.T) {
	for _, c := range secretLines() {
		for from := 0; from < len(c.line); from += 23 {
			for _, s := range []string{c.line[from:], c.line[:from], strings.ToUpper(c.line[from:])} {
				slow, m := maskByAll(s)
				if out, n := Mask(s); slow != out || m != n {
					t.Errorf("%q: a look at every shape gives %q, %d instead of %q, %d", s, slow, m, out, n)
				}
			}
		}
	}
}

func BenchmarkMask(b *testing.B) {
	s := "2026-11-26T10:00:00.123Z INFO request served method=GET path=/v1/things/42 status=200 took=3ms bytes=5120"
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		Mask(s)
	}
}

func BenchmarkMaskByAll(b *testing.B) {
	s := "2026-11-26T10:00:00.123Z INFO request served method=GET path=/v1/things/42 status=200 took=3ms bytes=5120"
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		maskByAll(s)
	}
}

func FuzzMask(f *testing.F) {
	f.Add("password=x")
	f.Add("Authorization: Bearer [masked] token=\xff\xfe")
	f.Add(`"token":"\"`)
	f.Add("2026-11-26 requirepass hunter2 \u212aey=x SG.aaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbb")
	f.Fuzz(func(t *testing.T, s string) {
		out, n := Mask(s)
		if slow, m := maskByAll(s); slow != out || m != n {
			t.Fatalf("%q: a look at every shape gives %q, %d instead of %q, %d", s, slow, m, out, n)
		}
		if n == 0 && out != s {
			t.Fatalf("%q became %q without a count", s, out)
		}
		if n > 0 && !strings.Contains(out, masked) {
			t.Fatalf("%q became %q: nothing says so", s, out)
		}
		if utf8.ValidString(s) && !utf8.ValidString(out) {
			t.Fatalf("%q became invalid: %q", s, out)
		}
	})
}
