package console

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// All shows every line unchanged.
func All(line string) (string, bool) { return line, true }

// Dapr shows the warnings and errors of a Dapr process, and every line that is not one of its log lines, such as a panic. The
// log file has everything.
func Dapr(line string) (string, bool) {
	for _, usual := range usualWarnings {
		if strings.Contains(line, usual) {
			return "", false
		}
	}
	level, message, structured := parse(line)
	if !structured {
		return line, strings.TrimSpace(line) != ""
	}
	if level == "info" || level == "debug" {
		return "", false
	}
	return strings.ToUpper(level) + " " + message, true
}

// usualWarnings are logged by Dapr and its etcd at every start of a healthy local system, and whenever a sidecar stops.
var usualWarnings = []string{
	"mTLS is disabled",
	"spec.metric.http.increasedCardinality",
	"Graceful shutdown timeout is infinite",
	"Running http and grpc server on single port",
	"exceeded recommended request limit",
	"simple token is not cryptographically signed",
	"quota exceeds the maximum value",
	"Error receiving from stream",
	"smtp binding warn: User and password are empty",
	"Marking prefixes as undeliverable",
}

// parse reads a log line of Dapr (logfmt) or of the etcd in its scheduler (JSON).
func parse(line string) (level, message string, structured bool) {
	if strings.HasPrefix(line, "{") {
		var record struct {
			Level   string `json:"level"`
			Message string `json:"msg"`
			Error   string `json:"error"`
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.Level == "" {
			return "", "", false
		}
		if record.Error != "" {
			record.Message += ": " + record.Error
		}
		return record.Level, record.Message, true
	}
	level, found := field(line, "level=")
	if !found || !strings.HasPrefix(line, "time=") {
		return "", "", false
	}
	message, _ = field(line, "msg=")
	return level, message, true
}

// field returns the value after key in a logfmt line.
func field(line, key string) (string, bool) {
	i := strings.Index(line, " "+key)
	if i < 0 {
		return "", false
	}
	rest := line[i+1+len(key):]
	if strings.HasPrefix(rest, `"`) {
		if quoted, err := strconv.QuotedPrefix(rest); err == nil {
			if text, err := strconv.Unquote(quoted); err == nil {
				return text, true
			}
		}
	}
	value, _, _ := strings.Cut(rest, " ")
	return value, true
}

// App shows an app's line. A structured one (slog's JSON) becomes time, level, message and the other attributes.
func App(line string) (string, bool) {
	if !strings.HasPrefix(line, "{") {
		return line, true
	}
	var record map[string]any
	if err := json.Unmarshal([]byte(line), &record); err != nil {
		return line, true
	}
	message, ok := record["msg"].(string)
	level, hasLevel := record["level"].(string)
	if !ok || !hasLevel {
		return line, true
	}
	var b strings.Builder
	if at, ok := record["time"].(string); ok {
		if t, err := time.Parse(time.RFC3339Nano, at); err == nil {
			b.WriteString(t.Local().Format("15:04:05.000 ")) //nolint:gosmopolitan // read by the person at this terminal
		}
	}
	fmt.Fprintf(&b, "%-5s %s", level, message)
	for _, key := range slices.Sorted(maps.Keys(record)) {
		switch key {
		// The prefix names the app. Trace ids are useful only in the file, where they can be searched.
		case "time", "level", "msg", "service", "app_id", "trace_id", "span_id", "source":
			continue
		}
		switch v := record[key].(type) {
		case string:
			if strings.ContainsAny(v, " \"\n\t=") {
				v = strconv.Quote(v)
			}
			fmt.Fprintf(&b, " %s=%s", key, v)
		case float64:
			fmt.Fprintf(&b, " %s=%s", key, strconv.FormatFloat(v, 'f', -1, 64))
		default:
			text, err := json.Marshal(v)
			if err != nil {
				text = fmt.Append(nil, v)
			}
			fmt.Fprintf(&b, " %s=%s", key, text)
		}
	}
	return b.String(), true
}

// failure reports whether a line can be the reason why its process ended.
func failure(line string) bool {
	for _, mark := range []string{"level=error", "level=fatal", `"level":"ERROR"`, "panic:", "fatal error:"} {
		if strings.Contains(line, mark) {
			return true
		}
	}
	return false
}
