package main

import (
	"testing"

	"github.com/nfslock/ansible-collection-kolla/internal/ansible/moduledoc/moduledoctest"
)

func TestDocumentation(t *testing.T) { moduledoctest.Module(t, "rpcbind_ensure", spec, *update) }
