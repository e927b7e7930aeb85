package main

import (
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible/moduledoc/moduledoctest"
)

func TestDocumentation(t *testing.T) { moduledoctest.Module(t, "nfs_lock_info", spec, *update) }
