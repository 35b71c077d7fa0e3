package inbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// Message is one message that was received, as a line of the file keeps it.
type Message struct {
	ReceivedAt time.Time `json:"received_at"`
	// Channel is how it came: email, sms or push, as contracts names them.
	Channel string `json:"channel"`
	// From is the sender of a mail.
	From string `json:"from,omitempty"`
	// To is the mail address, the phone number, or the name of the push subscription.
	To string `json:"to"`
	// Subject is that of a mail, or the title of a push message.
	Subject string `json:"subject,omitempty"`
	// Text is what a person reads.
	Text string `json:"text"`
	// HTML is the body of a mail that came as HTML; Text is then what it says.
	HTML string `json:"html,omitempty"`
	// Data is the decrypted content of a push message that is a JSON object.
	Data json.RawMessage `json:"data,omitempty"`
	// NotificationID is the sender's name for the message, when the channel carries it.
	NotificationID string `json:"notification_id,omitempty"`
}

// About reports whether the message names the order: in its own name, its subject, its text or its data.
func (m Message) About(order string) bool {
	for _, text := range []string{m.NotificationID, m.Subject, m.Text, m.HTML, string(m.Data)} {
		if names(text, order) {
			return true
		}
	}
	return false
}

// names reports whether text contains id and not only as a part of a longer one.
func names(text, id string) bool {
	if id == "" {
		return false
	}
	for at := 0; ; {
		i := strings.Index(text[at:], id)
		if i < 0 {
			return false
		}
		from, to := at+i, at+i+len(id)
		before, _ := utf8.DecodeLastRuneInString(text[:from])
		after, _ := utf8.DecodeRuneInString(text[to:])
		if !partOfWord(before) && !partOfWord(after) {
			return true
		}
		at = from + 1
	}
}

func partOfWord(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

// messagesName is the file in the inbox folder that keeps the messages, one JSON object a line, oldest first.
const messagesName = "messages.jsonl"

// File is the path of the kept messages in the inbox folder dir.
func File(dir string) string { return filepath.Join(dir, messagesName) }

// journal keeps messages in a file. Its methods are safe for concurrent use; one process at a time may have it open.
type journal struct {
	mu   sync.Mutex
	file *os.File
	end  int64 // of the last whole line
}

// openJournal opens the file, or makes it. What stands behind the last line end is cut off: it is a message that a killed
// process had not wholly written, so its sender never heard that it was taken and sends it again.
func openJournal(path string) (_ *journal, err error) {
	if err := trim(path, maxKept); err != nil {
		return nil, fmt.Errorf("remove old messages: %w", err)
	}
	file, err := os.OpenFile(filepath.Clean(path), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the kept messages: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	end, err := lastLineEnd(file)
	if err != nil {
		return nil, fmt.Errorf("read the kept messages: %w", err)
	}
	if err := file.Truncate(end); err != nil {
		return nil, fmt.Errorf("repair the kept messages: %w", err)
	}
	return &journal{file: file, end: end}, nil
}

// maxKept is how large, in bytes, the file of messages may be when the inbox starts: some 80,000 messages.
const maxKept = 32 << 20

// trim leaves the newer half of a file that is larger than limit.
func trim(path string, limit int64) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() <= limit {
		return nil
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return err
	}
	_, newer, _ := bytes.Cut(text[len(text)/2:], []byte("\n"))
	if err := os.WriteFile(path+".new", newer, 0o600); err != nil { //nolint:gosec // beside the file of the runner's own choice
		return err
	}
	return os.Rename(path+".new", path)
}

// lastLineEnd is the offset behind the last line end in file, 0 if there is none.
func lastLineEnd(file io.ReaderAt) (int64, error) {
	const step = 64 << 10
	var end, offset int64
	buffer := make([]byte, step)
	for {
		n, err := file.ReadAt(buffer, offset)
		if i := bytes.LastIndexByte(buffer[:n], '\n'); i >= 0 {
			end = offset + int64(i) + 1
		}
		offset += int64(n)
		if errors.Is(err, io.EOF) {
			return end, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// keep returns when the message is on the disk. If it fails, nothing of the message is left.
func (j *journal) keep(m Message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	line = append(line, '\n')
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err = j.file.WriteAt(line, j.end)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("keep message: %w", errors.Join(err, j.file.Truncate(j.end)))
	}
	j.end += int64(len(line))
	return nil
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.file.Close()
}

// Reader reads the kept messages of an inbox, also while they are being received.
type Reader struct {
	dir    string
	offset int64
}

// NewReader returns a Reader that begins with the oldest message in the inbox folder dir.
func NewReader(dir string) *Reader { return &Reader{dir: dir} }

// Next returns the messages that came since it was last asked, oldest first, and how many lines among them are damaged and
// were passed over. A message that is still being written is left for the next time. No inbox has no messages.
func (r *Reader) Next() (messages []Message, damaged int, err error) {
	folder, err := os.OpenRoot(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open the inbox: %w", err)
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	file, err := folder.Open(messagesName)
	if errors.Is(err, fs.ErrNotExist) {
		r.offset = 0
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open the kept messages: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("read the kept messages: %w", err)
	}
	if info.Size() < r.offset { // somebody began a new file
		r.offset = 0
	}
	if _, err := file.Seek(r.offset, io.SeekStart); err != nil {
		return nil, 0, fmt.Errorf("read the kept messages: %w", err)
	}
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return messages, damaged, nil
		}
		if err != nil {
			return messages, damaged, fmt.Errorf("read the kept messages: %w", err)
		}
		r.offset += int64(len(line))
		var m Message
		if json.Unmarshal(line, &m) != nil || m.Channel == "" {
			damaged++
			continue
		}
		messages = append(messages, m)
	}
}
