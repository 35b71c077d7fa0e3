//go:build linux || darwin

package datadir

import "syscall"

// freeSpace is how many bytes this user may still write in the folder.
func freeSpace(folder string) (bytes uint64, known bool) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(folder, &stat); err != nil {
		return 0, false
	}
	return stat.Bavail * uint64(stat.Bsize), true //nolint:gosec // a size, whose type depends on the system
}
