//go:build unix

package datadir

import (
	"errors"
	"os"
	"syscall"
)

// lock takes the lock that ends with the file, or with the process. It fails with errHeld while somebody else has it.
func lock(file *os.File) error {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errHeld
	}
	return err
}
