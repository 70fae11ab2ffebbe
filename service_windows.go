package main

import (
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode/utf16"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// What is here was run under wine 10 (.ci/wine.sh), and never on a real Windows. wine does not do these, so nobody has seen them
// work:
//
//   - the account NT SERVICE\appliance, its number in the access list of the data folder, and that nobody else gets in;
//   - starting again 2 seconds after a crash;
//   - the firewall rule, and the event log with its names;
//   - the path of programs in a terminal that is opened after the installation;
//   - that a process without the rights of an administrator is refused;
//   - that the program which removes itself is gone after the next start of the machine;
//   - a shutdown of Windows while mail comes in;
//   - renaming a folder of mail while somebody watches or reads in it, which NTFS may refuse;
//   - svc.IsWindowsService, which is false under wine: a build tag stands in for it there.

// windowsManager is the service manager of Windows. The library that runs the service under it could install it as well, but
// not change one that is there, nor have it started again after an end that is no crash.
type windowsManager struct{}

func managerHere() (serviceManager, error) { return windowsManager{}, nil }

// usualProgram is where the service's program lies.
func usualProgram(serviceManager) string {
	base := os.Getenv("ProgramFiles")
	if base == "" {
		base = `C:\Program Files`
	}
	return filepath.Join(base, serviceName, serviceName+".exe")
}

// elevated is a command as an administrator gives it, in a terminal of an administrator.
func elevated(command string) string { return command }

// deleteWords is the command that deletes a folder.
func deleteWords(dir string) string { return `rmdir /s "` + dir + `"` }

// requireAdministrator says what to do, unless this process has the rights of one: to make services.
func requireAdministrator(command string) error {
	m, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT|windows.SC_MANAGER_CREATE_SERVICE)
	if err == nil {
		return windows.CloseServiceHandle(m)
	}
	return fmt.Errorf("only an administrator can do this: in the start menu, type cmd, choose \"Run as administrator\", and there run %s", command)
}

// serviceAccount is an account that Windows has for this service alone, with no password and few rights.
func serviceAccount(name string) string { return `NT SERVICE\` + name }

// serviceSID is the number of that account, which is made of its name: S-1-5-80 and the SHA-1 of its capitals in UTF-16.
func serviceSID(name string) string {
	var text []byte
	for _, c := range utf16.Encode([]rune(strings.ToUpper(name))) {
		text = binary.LittleEndian.AppendUint16(text, c)
	}
	sum := sha1.Sum(text)
	sid := "S-1-5-80"
	for i := 0; i < len(sum); i += 4 {
		sid += fmt.Sprintf("-%d", binary.LittleEndian.Uint32(sum[i:]))
	}
	return sid
}

// open opens the service for what access says.
func (windowsManager) open(access uint32) (*mgr.Service, func(), error) {
	m, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the service manager: %w", err)
	}
	name, err := syscall.UTF16PtrFromString(serviceName)
	if err != nil {
		return nil, nil, err
	}
	h, err := windows.OpenService(m, name, access)
	if err != nil {
		_ = windows.CloseServiceHandle(m)
		return nil, nil, err
	}
	s := &mgr.Service{Name: serviceName, Handle: h}
	return s, func() { _ = s.Close(); _ = windows.CloseServiceHandle(m) }, nil
}

// State is serviceManager.
func (w windowsManager) State() ServiceState {
	state := ServiceState{Manager: "Windows"}
	s, done, err := w.open(windows.SERVICE_QUERY_CONFIG | windows.SERVICE_QUERY_STATUS)
	if err != nil {
		return state
	}
	defer done()
	state.Installed = true
	if status, err := s.Query(); err == nil {
		state.Running = status.State != svc.Stopped
	}
	if line, start, err := queriedCommand(s); err == nil {
		state.AtBoot = start == mgr.StartAutomatic
		state.Options = commandOptions(line)
	}
	return state
}

// queriedCommand gives a service's command line, and when it is started. The library asks for more, which wine does not know.
func queriedCommand(s *mgr.Service) (line string, start uint32, err error) {
	const most = 8 << 10 // bytes, by the documentation of QueryServiceConfig
	var buf [most / 8]uint64
	config := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(&buf))
	var needed uint32
	if err := windows.QueryServiceConfig(s.Handle, config, most, &needed); err != nil {
		return "", 0, fmt.Errorf("reading what Windows knows of the service: %w", err)
	}
	return windows.UTF16PtrToString(config.BinaryPathName), config.StartType, nil
}

// commandOptions gives the flags of a service's command line.
func commandOptions(line string) []string {
	words, err := windows.DecomposeCommandLine(line)
	if err != nil {
		return nil
	}
	for i, w := range words {
		if w == "--service" {
			return words[i+1:]
		}
	}
	return nil
}

func commandLine(plan *ServicePlan) string {
	line := syscall.EscapeArg(plan.Program)
	for _, a := range plan.Args {
		line += " " + syscall.EscapeArg(a)
	}
	return line
}

// Write is serviceManager.
func (w windowsManager) Write(plan *ServicePlan) (undo func() error, err error) {
	s, done, err := w.open(windows.SERVICE_ALL_ACCESS)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return w.create(plan)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the service: %w", err)
	}
	defer done()
	before, _, err := queriedCommand(s)
	if err != nil {
		return nil, err
	}
	if err := changeService(s, commandLine(plan)); err != nil {
		return nil, err
	}
	undo = func() error {
		s, done, err := w.open(windows.SERVICE_ALL_ACCESS)
		if err != nil {
			return err
		}
		defer done()
		return changeService(s, before)
	}
	return undo, w.finish(s, plan)
}

// changeService gives a service another command line, and has it start with the machine.
func changeService(s *mgr.Service, line string) error {
	text, err := syscall.UTF16PtrFromString(line)
	if err == nil {
		err = windows.ChangeServiceConfig(s.Handle, windows.SERVICE_NO_CHANGE, windows.SERVICE_AUTO_START, windows.SERVICE_NO_CHANGE, text, nil, nil, nil, nil, nil, nil)
	}
	if err != nil {
		return fmt.Errorf("telling Windows of the service: %w", err)
	}
	return nil
}

func (w windowsManager) create(plan *ServicePlan) (undo func() error, err error) {
	m, err := mgr.Connect()
	if err != nil {
		return nil, fmt.Errorf("opening the service manager: %w", err)
	}
	defer m.Disconnect()
	s, err := m.CreateService(serviceName, plan.Program, mgr.Config{
		DisplayName: serviceTitle, Description: "Mail for the people of one network: SMTP, IMAP and POP3",
		StartType: mgr.StartAutomatic, ErrorControl: mgr.ErrorNormal, ServiceStartName: serviceAccount(plan.User),
		Dependencies: []string{"Tcpip"},
	}, plan.Args...)
	if err != nil {
		return nil, fmt.Errorf("telling Windows of the service: %w", err)
	}
	defer s.Close()
	if err := w.finish(s, plan); err != nil {
		return nil, errors.Join(err, w.Remove())
	}
	return w.Remove, nil
}

// restartDelay is after what time a service is started again that has ended without being told to.
const restartDelay = 2 * time.Second

// finish sets what goes with the service: that it is started again, its name in the event log, the firewall, the way to its program.
func (windowsManager) finish(s *mgr.Service, plan *ServicePlan) error {
	again := mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: restartDelay}
	const forget = 24 * 60 * 60 // seconds without a failure
	err := s.SetRecoveryActions([]mgr.RecoveryAction{again, again, again}, forget)
	if err == nil {
		err = s.SetRecoveryActionsOnNonCrashFailures(true)
	}
	if err != nil && !errors.Is(err, windows.ERROR_INVALID_LEVEL) { // what resembles Windows does not know it
		return fmt.Errorf("having the service started again when it fails: %w", err)
	}
	if err := registerEvents(); err != nil {
		return err
	}
	if err := openFirewall(plan); err != nil {
		return err
	}
	return addToPath(filepath.Dir(plan.Program))
}

// Remove is serviceManager.
func (w windowsManager) Remove() error {
	s, done, err := w.open(windows.SERVICE_ALL_ACCESS)
	if err == nil {
		err = s.Delete()
		done()
	}
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) || errors.Is(err, windows.ERROR_SERVICE_MARKED_FOR_DELETE) {
		err = nil
	}
	return errors.Join(err, forgetEvents(), closeFirewall(), removeFromPath(filepath.Dir(usualProgram(w))))
}

// Start is serviceManager.
func (w windowsManager) Start(ctx context.Context) error {
	s, done, err := w.open(windows.SERVICE_START | windows.SERVICE_QUERY_STATUS)
	if err != nil {
		return err
	}
	defer done()
	if err := s.Start(); err != nil && !errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
		return err
	}
	return awaitState(ctx, s, func(state svc.State) bool { return state != svc.StartPending })
}

// Stop is serviceManager.
func (w windowsManager) Stop(ctx context.Context) error {
	s, done, err := w.open(windows.SERVICE_STOP | windows.SERVICE_QUERY_STATUS)
	if err != nil {
		return err
	}
	defer done()
	if _, err := s.Control(svc.Stop); err != nil && !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return err
	}
	return awaitState(ctx, s, func(state svc.State) bool { return state == svc.Stopped })
}

// How long the service may take to start or to end.
const statePatience = time.Minute

func awaitState(ctx context.Context, s *mgr.Service, good func(svc.State) bool) error {
	ctx, cancel := context.WithTimeout(ctx, statePatience)
	defer cancel()
	for {
		status, err := s.Query()
		if err != nil {
			return err
		}
		if good(status.State) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("Windows does not say that it is done")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// LogCommand is serviceManager. All that is logged is in a file; the event log has what deserves a look.
func (windowsManager) LogCommand() []string { return nil }

// prepareSystem makes the folder, and lets the service's account, the system and the administrators into it, and nobody else.
func prepareSystem(plan *ServicePlan) (undo func() error, err error) {
	if err := os.MkdirAll(plan.Data, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	if err := plan.fill(); err != nil {
		return nil, err
	}
	return func() error { return nil }, letIn(plan.Data, "(A;OICI;FA;;;"+serviceSID(plan.User)+")")
}

// leaveSystem takes the folder from the account of the service.
func leaveSystem(plan *ServicePlan) error {
	err := letIn(plan.Data, "")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeProgram removes a program and its folder. That of this process is removed when the machine starts the next time.
func removeProgram(file string) error {
	err := removeFile(file)
	if self, serr := os.Executable(); err != nil && serr == nil && strings.EqualFold(self, file) {
		err = removeLater(file)
	}
	_ = os.Remove(filepath.Dir(file)) // if it is empty
	return err
}

// removeLater sets a file that runs aside to be removed at the next start.
func removeLater(file string) error {
	aside := filepath.Join(os.TempDir(), fmt.Sprintf("%s-removed-%d.exe", serviceName, os.Getpid()))
	if err := os.Rename(file, aside); err != nil {
		aside = file
	}
	name, err := syscall.UTF16PtrFromString(aside)
	if err != nil {
		return err
	}
	return windows.MoveFileEx(name, nil, windows.MOVEFILE_DELAY_UNTIL_REBOOT)
}
