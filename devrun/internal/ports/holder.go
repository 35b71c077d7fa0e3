package ports

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"waybill/devrun/internal/child"
)

// holder names the process that listens on a port: from /proc where there is one, else by lsof where that is installed.
func holder(port int) string {
	proc := os.DirFS("/proc")
	if pid := fromProc(proc, port); pid > 0 {
		return describe(proc, pid)
	}
	if who := fromLsof(port); who != "" {
		return who
	}
	return "a process that this user may not see"
}

// fromProc returns the id of the process that listens on port, 0 if it cannot be told.
func fromProc(proc fs.FS, port int) int {
	sockets := map[string]bool{}
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		text, err := fs.ReadFile(proc, table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
			f := strings.Fields(line)
			const listening = "0A"
			if len(f) < 10 || f[3] != listening {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			if n, err := strconv.ParseUint(hex, 16, 16); err == nil && int(n) == port {
				sockets["socket:["+f[9]+"]"] = true
			}
		}
	}
	if len(sockets) == 0 {
		return 0
	}
	links, err := fs.Glob(proc, "[0-9]*/fd/*")
	if err != nil {
		return 0
	}
	for _, link := range links {
		if target, err := fs.ReadLink(proc, link); err == nil && sockets[target] {
			pid, _ := strconv.Atoi(path.Dir(path.Dir(link)))
			return pid
		}
	}
	return 0
}

func describe(proc fs.FS, pid int) string {
	cmdline, err := fs.ReadFile(proc, strconv.Itoa(pid)+"/cmdline")
	command := strings.TrimSpace(string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
	if err != nil || command == "" {
		return fmt.Sprintf("process %d", pid)
	}
	const enough = 100
	if len(command) > enough {
		command = command[:enough] + "..."
	}
	return fmt.Sprintf("process %d (%s)", pid, command)
}

func fromLsof(port int) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	out, err := child.Command(ctx, "lsof", "-nP", "-iTCP:"+strconv.Itoa(port), "-sTCP:LISTEN", "-Fpc").Output()
	if err != nil {
		return ""
	}
	var pid, command string
	for line := range strings.Lines(string(out)) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "p"):
			pid = line[1:]
		case strings.HasPrefix(line, "c"):
			command = line[1:]
		}
		if pid != "" && command != "" {
			return fmt.Sprintf("process %s (%s)", pid, command)
		}
	}
	return ""
}
