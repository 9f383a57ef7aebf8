package local

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Process is one that this program has started.
type Process struct {
	name    string
	log     *os.File
	command *exec.Cmd
	ended   chan error // Holds what it ended with, from then on.
	killed  bool
}

// StartProcess starts a program whose output goes to a file.
func StartProcess(name, log, binary string, args ...string) (*Process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	p := &Process{name: name, log: file, command: exec.Command(binary, args...), ended: make(chan error, 1)}
	p.command.Stdout, p.command.Stderr = file, file
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this program alone.
	if err := p.command.Start(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	go func() { p.ended <- p.command.Wait() }()
	return p, nil
}

// PID is the process's number.
func (p *Process) PID() int { return p.command.Process.Pid }

// Ended tells with an error that the process has ended.
func (p *Process) Ended() error {
	select {
	case err := <-p.ended:
		p.ended <- err
		return fmt.Errorf("%s has ended, see %s: %w", p.name, p.log.Name(), errors.Join(err))
	default:
		return nil
	}
}

// Kill ends it at once, as kill -9 does. Stop is still to be called, and finds nothing wrong with that.
func (p *Process) Kill() error {
	p.killed = true
	return p.command.Process.Kill()
}

// ask asks it to end. One that had ended already, and was not killed, is an error.
func (p *Process) ask() error {
	if err := p.Ended(); err != nil {
		if p.killed {
			return nil
		}
		return fmt.Errorf("before it was stopped: %w", err)
	}
	_ = p.command.Process.Signal(syscall.SIGTERM)
	return nil
}

// await waits until it has ended, and kills it when that takes too long.
func (p *Process) await() (err error) {
	select {
	case e := <-p.ended:
		p.ended <- e
	case <-time.After(stopMax):
		err = fmt.Errorf("%s did not stop, see %s", p.name, p.log.Name())
		_ = p.command.Process.Kill()
		p.ended <- <-p.ended
	}
	_ = p.log.Close()
	return err
}

// StopAll asks processes to end, all at once, and waits for them.
func StopAll(list []*Process) error {
	var errs []error
	for _, p := range list {
		errs = append(errs, p.ask())
	}
	for _, p := range list {
		errs = append(errs, p.await())
	}
	return errors.Join(errs...)
}

// FreePorts gives addresses on loopback that were free a moment ago, from a port on; 0 for any.
func FreePorts(n, from int) ([]string, error) {
	var list []string
	for port := from; len(list) < n; port++ {
		if from == 0 {
			port = 0
		}
		lis, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if from > 0 && errors.Is(err, syscall.EADDRINUSE) && port < math.MaxUint16 {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer func() { _ = lis.Close() }() // All at the end, so that they differ.
		list = append(list, lis.Addr().String())
	}
	return list, nil
}
