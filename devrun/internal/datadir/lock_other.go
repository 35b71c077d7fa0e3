//go:build !unix

package datadir

import "os"

// Without flock a second runner is not noticed here, but at the first port both want.
func tryLock(*os.File) error { return nil }

// WaitLock does nothing on a system without flock.
func WaitLock(*os.File) error { return nil }
