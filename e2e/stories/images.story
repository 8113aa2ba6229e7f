# The node's images: listed, imported, pulled from a registry, named, exported, verified, removed, pruned.
$ trimtab image ls --data-dir $DATA | awk 'NR>1{print $NF}' | sort
trimtab.local/busybox:latest
trimtab.local/trimtab:latest
$ trimtab image import $WORK/busybox.tar --name example.org/tools:1 --data-dir $DATA | grep -o 'example.org/tools:1'
example.org/tools:1
$ mkdir -p $WORK/registry/v2/tools/manifests $WORK/registry/v2/tools/blobs; cd $WORK/registry/v2/tools; put() { D=sha256:$(sha256sum $1 | cut -d' ' -f1); cp $1 blobs/$D; printf '{"mediaType":"%s","digest":"%s","size":%s}' $2 $D $(stat -c %s $1); }; M=application/vnd.oci.image; printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":%s,"layers":[%s]}' $M "$(put $WORK/archive/config.json $M.config.v1+json)" "$(put $WORK/layer.tar $M.layer.v1.tar)" > manifests/1
$ busybox httpd -f -p 127.0.0.1:5000 -h $WORK/registry & curl -s --retry 50 --retry-delay 0 --retry-connrefused -o /dev/null http://127.0.0.1:5000/; trimtab image pull 127.0.0.1:5000/tools:1 --plain-http 127.0.0.1:5000 --data-dir $DATA 2>/dev/null | grep -o '127.0.0.1:5000/tools:1'; trimtab image pull 127.0.0.1:5000/tools:2 --plain-http 127.0.0.1:5000 --data-dir $DATA; kill $!
127.0.0.1:5000/tools:1
error: 127.0.0.1:5000/tools:2: not found
# What refers to it is listed under a tag there.
$ cd $WORK/registry/v2/tools; put() { D=sha256:$(sha256sum $1 | cut -d' ' -f1); cp $1 ${3:-blobs}/$D; printf '{"mediaType":"%s","digest":"%s","size":%s' $2 $D $(stat -c %s $1); }; M=application/vnd.oci.image; echo '{"name":"tools"}' > $WORK/spdx; printf '{"schemaVersion":2,"artifactType":"application/spdx+json","config":%s},"layers":[%s}],"subject":%s}}' "$(printf {} > $WORK/empty; put $WORK/empty application/vnd.oci.empty.v1+json)" "$(put $WORK/spdx application/spdx+json)" "$(put manifests/1 $M.manifest.v1+json manifests)" > $WORK/sbom; printf '{"schemaVersion":2,"manifests":[%s,"artifactType":"application/spdx+json"}]}' "$(put $WORK/sbom $M.manifest.v1+json manifests)" > manifests/sha256-$(sha256sum < manifests/1 | cut -d' ' -f1)
$ busybox httpd -f -p 127.0.0.1:5000 -h $WORK/registry & curl -s --retry 50 --retry-delay 0 --retry-connrefused -o /dev/null http://127.0.0.1:5000/; R="127.0.0.1:5000/tools:1 --plain-http 127.0.0.1:5000 --data-dir $DATA"; trimtab image referrers $R | awk 'NR>1{print $NF}'; trimtab image referrers $R --artifact-type other/type -o json; trimtab image pull $R --referrers 2>&1 | grep referrers; trimtab image inspect 127.0.0.1:5000/tools:1 --data-dir $DATA | grep -o '"artifactType": "[^"]*"'; kill $!
application/spdx+json
[]
referrers: 1
"artifactType": "application/spdx+json"
$ trimtab image ls --data-dir $DATA | grep -c 127.0.0.1:5000/tools:1
1
$ trimtab image rm 127.0.0.1:5000/tools:1 --data-dir $DATA
127.0.0.1:5000/tools:1 removed
$ trimtab image tag example.org/tools:1 example.org/tools:2 --data-dir $DATA
example.org/tools:2
$ trimtab image export -o $WORK/tools.tar example.org/tools:2 --data-dir $DATA && tar tf $WORK/tools.tar | grep -v sha256
oci-layout
index.json
manifest.json
$ trimtab image verify example.org/tools:2 --data-dir $DATA
example.org/tools:2: as it came
$ trimtab image inspect example.org/tools:2 --data-dir $DATA | grep -c 'example.org/tools:[12]'
2
$ trimtab image rm example.org/tools:1 example.org/tools:2 --data-dir $DATA
example.org/tools:1 removed
example.org/tools:2 removed
$ trimtab image rm nothing --data-dir $DATA
error: nothing: not found
exit 1
$ trimtab image prune --data-dir $DATA | grep -c freed
1
$ trimtab image ls --data-dir $DATA | awk 'NR>1{print $NF}' | sort
trimtab.local/busybox:latest
trimtab.local/trimtab:latest
# An ordinary user has a store of his own.
$ U=$(mktemp -d); cp $(command -v trimtab) $WORK/busybox.tar $U; chown -R 54321:54321 $U; setpriv --reuid=54321 --regid=54321 --clear-groups env -u XDG_DATA_HOME HOME=$U PATH=$U:$PATH sh -c 'trimtab image import $HOME/busybox.tar --name mine:1 2>&1 | grep -o mine:1; trimtab image ls | grep -c mine:1; trimtab image rm mine:1; ls $HOME/.local/share/trimtab'; rm -r $U
mine:1
1
mine:1 removed
images
