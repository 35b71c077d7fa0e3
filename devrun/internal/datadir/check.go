package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// room is the least free space that a folder needs when a system starts on it. Etcd allocates 64 MB for each of its log files
// before it writes.
func (d Dir) room() []struct {
	folder string
	mb     uint64
} {
	return []struct {
		folder string
		mb     uint64
	}{
		{d.State(), 32}, {d.Scheduler(), 160}, {d.Broker(), 32}, {d.Inbox(), 8}, {d.Logs(), 8}, {d.Components(), 8}, {string(d), 8},
	}
}

// Check reports every reason why a system cannot run on the folder: a part that is missing, cannot be written, or has too little
// free space, and a file that is not a database.
func (d Dir) Check() error {
	var faults []error
	for _, need := range d.room() {
		if err := checkFolder(need.folder, need.mb); err != nil {
			faults = append(faults, err)
		}
	}
	databases, err := filepath.Glob(filepath.Join(d.State(), "*.db"))
	faults = append(faults, err) // of the pattern, which is right
	for _, path := range databases {
		faults = append(faults, checkDatabase(path))
	}
	if err := errors.Join(faults...); err != nil {
		return &UnusableError{Dir: d, Faults: err}
	}
	return nil
}

// UnusableError is the reason why no system can run on a folder.
type UnusableError struct {
	Dir    Dir
	Faults error // one a line
}

func (e *UnusableError) Error() string {
	return fmt.Sprintf("the data folder %s cannot be used:\n  %s\nMake space or mend this, or choose another folder with --data.",
		e.Dir, strings.ReplaceAll(e.Faults.Error(), "\n", "\n  "))
}

func (e *UnusableError) Unwrap() error { return e.Faults }

// checkFolder writes a small file and checks the free space.
func checkFolder(folder string, mb uint64) error {
	expected := fmt.Sprintf("a folder is expected that this user can write to, with at least %d MB free", mb)
	info, err := os.Stat(folder)
	if err != nil {
		return fmt.Errorf("%s cannot be read: %w; %s", folder, reason(err), expected)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no folder; %s", folder, expected)
	}
	if err := tryWrite(folder); err != nil {
		return fmt.Errorf("%s cannot be written: %w; %s", folder, reason(err), expected)
	}
	const unit = 1_000_000
	if free, known := freeSpace(folder); known && free < mb*unit {
		return fmt.Errorf("%s has %d MB free; %s", folder, free/unit, expected)
	}
	return nil
}

// tryWrite writes a file, and removes it.
func tryWrite(folder string) error {
	file, err := os.CreateTemp(folder, ".check-*")
	if err != nil {
		return err
	}
	const page = 4096
	_, err = file.Write(make([]byte, page))
	return errors.Join(err, file.Close(), os.Remove(file.Name()))
}

// reason is the system's error without the path, which the caller names.
func reason(err error) error {
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return number
	}
	return err
}

// checkDatabase checks that a SQLite file can be written. SQLite itself checks its contents.
func checkDatabase(path string) (err error) {
	file, err := os.OpenFile(filepath.Clean(path), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) { // a link to a file that is yet to be made
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w; a file is expected that this user can read and write", path, reason(err))
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	const magic = "SQLite format 3\x00"
	begin := make([]byte, len(magic))
	n, err := io.ReadFull(file, begin)
	switch {
	case n == 0 && errors.Is(err, io.EOF): // new
		return nil
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s cannot be read: %w", path, reason(err))
	case string(begin) != magic:
		return fmt.Errorf("%s is not a SQLite database: put it aside, and what it held is lost; an earlier copy of it may do", path)
	default:
		return nil
	}
}

// Vanished returns an error if the folder or a part of it, as info was when the system started, no longer exists.
func (d Dir) Vanished(info os.FileInfo) error {
	for _, folder := range []string{string(d), d.State(), d.Broker(), d.Scheduler(), d.Inbox()} {
		now, err := os.Stat(folder)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && folder == string(d) && !os.SameFile(info, now):
			return fmt.Errorf("the folder %s was removed while the system ran on it", folder)
		}
	}
	return nil
}
