# A Deployment and its Service are applied, on both sides, with conflicts, and compared.
$ kubectl apply -f manifests/web.yaml
deployment.apps/web created
service/web created
$ kubectl rollout status deployment/web --timeout=60s | tail -1
deployment "web" successfully rolled out
$ kubectl apply -f manifests/web.yaml
deployment.apps/web unchanged
service/web unchanged
$ kubectl diff -f manifests/web.yaml
$ kubectl scale deployment web --replicas=4
deployment.apps/web scaled
~ kubectl get deployment web -o jsonpath='{.status.availableReplicas}'
4
$ kubectl diff -f manifests/web.yaml | grep '^[-+] '
-  generation: [..]
+  generation: [..]
-  replicas: 4
+  replicas: 3
$ kubectl diff -f manifests/web.yaml >/dev/null
exit 1
$ sed 's/replicas: 3/replicas: 5/' manifests/web.yaml | kubectl apply --server-side --field-manager=other -f - 2>&1 | grep -e conflict: -e applied
service/web serverside-applied
error: Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas
$ sed 's/replicas: 3/replicas: 5/' manifests/web.yaml | kubectl apply --server-side --field-manager=other --force-conflicts -f -
deployment.apps/web serverside-applied
service/web serverside-applied
$ kubectl get deployment web --show-managed-fields -o jsonpath='{.metadata.managedFields[?(@.manager=="other")].operation}'
Apply
$ kubectl scale deployment web --replicas=9 --current-replicas=8
error: Expected replicas to be 8, was 5
exit 1
$ kubectl scale deployment web --replicas=3
deployment.apps/web scaled
~ kubectl get deployment web -o jsonpath='{.status.replicas} {.status.availableReplicas}'
3 3
~ kubectl get pods -l app=web --no-headers | wc -l
3
