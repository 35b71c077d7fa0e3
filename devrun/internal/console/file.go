package console

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// File is a log file that is renamed to <name>.1 when it reaches its size limit. The two files together have at most about
// twice the limit.
type File struct {
	path  string
	limit int64

	mu   sync.Mutex
	file *os.File
	size int64
}

// OpenFile opens the log file at path for appending.
func OpenFile(path string, limit int64) (*File, error) {
	f := &File{path: path, limit: limit}
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *File) open() error {
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open log file: %w", err), file.Close())
	}
	f.file, f.size = file, info.Size()
	return nil
}

// Write appends p. It is safe for concurrent use.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.size > 0 && f.size+int64(len(p)) > f.limit {
		if err := f.file.Close(); err != nil {
			return 0, fmt.Errorf("rotate log file: %w", err)
		}
		if err := os.Rename(f.path, f.path+".1"); err != nil {
			return 0, fmt.Errorf("rotate log file: %w", err)
		}
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	n, err := f.file.Write(p)
	f.size += int64(n)
	return n, err
}

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Close()
}
