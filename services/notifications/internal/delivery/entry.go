package delivery

import (
	"strconv"
	"strings"
	"time"
)

// round is one round of a message.
type round struct {
	id string
	n  int
}

// entry is an entry of the backlog: a round of a message that is not known to be settled. The entry of a later round than the
// first is added before that round begins, so it also says when it was added.
type entry struct {
	round

	at   time.Time
	text string
}

// entryGrace is how long an entry is kept whose round has not begun.
const entryGrace = 10 * time.Minute

// entryOf is the text of an entry. That of the first round is the id alone, as every earlier release wrote it.
func entryOf(id string, n int, at time.Time) string {
	if n == 0 {
		return id
	}
	return id + "#" + strconv.Itoa(n) + "@" + strconv.FormatInt(at.Unix(), 10)
}

func parseEntry(text string) entry {
	id, rest, _ := strings.Cut(text, "#")
	number, seconds, _ := strings.Cut(rest, "@")
	n, _ := strconv.Atoi(number)
	unix, _ := strconv.ParseInt(seconds, 10, 64)
	return entry{round{id, n}, time.Unix(unix, 0), text}
}
