#!/bin/sh
# Builds the control plane into a folder, and copies beside it what operators define: build.sh FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
target=$(cd "$1" && pwd)
version=$(sed -n 's/^\tk8s.io\/kubernetes \(v1\.[0-9.]*\)$/\1/p' "$here/go.mod")
minor=$(echo "$version" | cut -d. -f2)
package=k8s.io/component-base/version

copy() {  # copy MODULE@VERSION FILE
	folder=$(cd / && go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	cp "$folder/$2" "$target/"
}
copy github.com/kedacore/keda/v2@v2.19.0 config/crd/bases/keda.sh_scaledobjects.yaml
for name in prometheusrules servicemonitors; do
	copy github.com/prometheus-operator/prometheus-operator@v0.85.0 \
		example/prometheus-operator-crd/monitoring.coreos.com_$name.yaml
done
(cd "$target" && chmod 644 ./*.yaml && sha256sum --quiet -c "$here/SHA256SUMS")
cd "$here"
go build -p 2 -trimpath -o "$target/kube" -ldflags \
	"-s -w -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
