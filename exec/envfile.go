package exec

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"

	"p2pnode"
)

// readEnvFiles reads KEY=VALUE lines, in the files' order. Empty lines and those
// that begin with # say nothing; `export` before a key is left out; a value in
// quotes loses them, and in double quotes \n, \t, \\ and \" mean what they do in a
// shell. Nothing else is expanded: a file says what it says.
func readEnvFiles(paths []string) ([]string, error) {
	var out []string
	for _, path := range paths {
		raw, err := readEnvFile(path)
		if err != nil {
			return nil, fmt.Errorf("its env_file %s cannot be read: %s", path, plain(err))
		}
		more, err := parseEnv(raw)
		if err != nil {
			return nil, fmt.Errorf("its env_file %s:%w", path, err)
		}
		out = append(out, more...)
	}
	return out, nil
}

func readEnvFile(path string) ([]byte, error) {
	f, info, err := p2pnode.OpenFor(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.Size() > maxEnvFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxEnvFile)
	}
	return io.ReadAll(io.LimitReader(f, maxEnvFile))
}

// parseEnv is readEnvFiles for one file's bytes; an error begins with the line.
func parseEnv(raw []byte) ([]string, error) {
	var out []string
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, maxEnvFile+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if bare, cut := strings.CutPrefix(key, "export "); cut {
			key = bare
		}
		key = strings.TrimSpace(key)
		if !ok || key == "" || strings.ContainsAny(key, " \t'\"") {
			return nil, fmt.Errorf("%d: it is no KEY=VALUE", n) // what it is may be a secret
		}
		value, err := unquoteEnv(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("%d: %s: %w", n, key, err)
		}
		if strings.ContainsRune(key+value, 0) {
			return nil, fmt.Errorf("%d: %s has a zero byte", n, key)
		}
		out = append(out, key+"="+value)
	}
	return out, lines.Err()
}

var envEscapes = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\\`, `\`, `\"`, `"`, `\$`, `$`)

func unquoteEnv(value string) (string, error) {
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return value, nil
	}
	if len(value) < 2 || value[len(value)-1] != value[0] {
		return "", fmt.Errorf("the quote %c is not closed in its line", value[0])
	}
	inner := value[1 : len(value)-1]
	if value[0] == '"' {
		inner = envEscapes.Replace(inner)
	}
	return inner, nil
}
