package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/windows"
)

// becomeOwner changes nothing: the service manager gives the account, and what a file lets whom do is inherited from its folder.
func becomeOwner(string) error { return nil }

// letIn leaves a folder and what is in it to its owner, the system, the administrators and whom more says, in the language of
// security descriptors.
func letIn(dir, more string) error {
	descriptor, err := windows.SecurityDescriptorFromString("D:P(A;OICI;FA;;;OW)(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)" + more)
	if err != nil {
		return fmt.Errorf("saying who may go into %s: %w", dir, err)
	}
	list, _, err := descriptor.DACL()
	if err == nil {
		err = windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT,
			windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, list, nil)
	}
	if err != nil && !errors.Is(err, windows.ERROR_NOT_SUPPORTED) && !errors.Is(err, windows.ERROR_INVALID_FUNCTION) { // FAT has no such lists
		return fmt.Errorf("saying who may go into %s: %w", dir, err)
	}
	return nil
}
