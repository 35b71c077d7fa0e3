package scheduler

// Retention returns the flags that bound what the scheduler's etcd keeps of the past. A workflow writes and deletes some forty
// jobs, and etcd keeps every revision until it compacts: by default only after 1,000,000 of them, in memory and on disk (ADR 27).
// A test compares these flags with every other place that starts a scheduler.
func Retention() []string {
	return []string{
		"--etcd-compaction-mode", "periodic", "--etcd-compaction-retention", "1m",
		// Raft's log is kept in memory up to the last snapshot.
		"--etcd-snapshot-count", "5000",
		// A write-ahead log takes 64 MB on disk.
		"--etcd-max-wals", "3", "--etcd-max-snapshots", "3",
	}
}
