// Package seccomp builds filters of system calls and puts them over a thread
// or a process. A filter lists what is allowed; all else fails with EPERM,
// and calls of another architecture end the process. There is no way back.
package seccomp
