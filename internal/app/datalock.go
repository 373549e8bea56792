package app

// LockData takes a data directory for this process, as Up does: for what must
// not run beside it. Error: another Cordon runs on it.
func LockData(dir string) (unlock func(), err error) { return lockData(dir) }
