package cluster

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// spawner starts all processes from one thread, which lives as long as this program: they are to end with it, and the
// kernel takes the end of the thread that started them for that.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// spawn starts a process that ends with this program, where the network wants it.
func spawn(net network, node string, c *exec.Cmd) error {
	c.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // Ctrl-C is for this program alone.
		Pdeathsig: syscall.SIGKILL,
	}
	done := make(chan error)
	spawner() <- func() {
		undo, err := net.prepare(node, c)
		if err == nil {
			err = c.Start()
			undo()
		}
		done <- err
	}
	return <-done
}
