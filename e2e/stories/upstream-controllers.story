# kube-controller-manager in the place of our controllers: it rolls out, repairs, and cleans up.
$ kubectl create namespace theirs
namespace/theirs created
~ kubectl get serviceaccount -n theirs -o name
serviceaccount/default
$ kubectl apply -n theirs -f manifests/web.yaml
deployment.apps/web created
service/web created
$ kubectl rollout status -n theirs deployment/web --timeout=120s | tail -1
deployment "web" successfully rolled out
~ kubectl get endpointslices -n theirs -o jsonpath='{range .items[*]}{.metadata.labels.endpointslice\.kubernetes\.io/managed-by} {.endpoints[*].conditions.ready}{"\n"}{end}'
endpointslice-controller.k8s.io true true true
$ kubectl set env -n theirs deployment/web ROUND=two
deployment.apps/web env updated
$ kubectl rollout status -n theirs deployment/web --timeout=120s | tail -1
deployment "web" successfully rolled out
$ kubectl get replicasets -n theirs -o jsonpath='{range .items[*]}{.metadata.annotations.deployment\.kubernetes\.io/revision} {.spec.replicas}{"\n"}{end}' | sort
1 0
2 3
$ kubectl rollout undo -n theirs deployment/web 2>&1 | grep -v Warning
deployment.apps/web rolled back
$ kubectl rollout status -n theirs deployment/web --timeout=120s | tail -1
deployment "web" successfully rolled out
$ kubectl scale -n theirs deployment/web --replicas=1
deployment.apps/web scaled
~ kubectl get pods -n theirs --no-headers | wc -l
1
$ kubectl delete pod -n theirs --all --wait=false | wc -l
1
~ kubectl get deployment -n theirs web -o jsonpath='{.status.readyReplicas}'
1
$ kubectl delete deployment -n theirs web --cascade=orphan
deployment.apps "web" deleted from theirs namespace
~ kubectl get replicasets -n theirs -o jsonpath='{.items[*].metadata.ownerReferences}'
$ kubectl delete replicasets -n theirs --all --cascade=foreground | wc -l
2
~ kubectl get pods -n theirs
No resources found in theirs namespace.
$ kubectl create configmap owner -n theirs && kubectl create secret generic owned -n theirs && kubectl patch secret owned -n theirs --type=merge -p "{\"metadata\":{\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"name\":\"owner\",\"uid\":\"$(kubectl get configmap owner -n theirs -o jsonpath={.metadata.uid})\"}]}}"
configmap/owner created
secret/owned created
secret/owned patched
$ kubectl delete configmap owner -n theirs
configmap "owner" deleted from theirs namespace
~ kubectl get secret owned -n theirs
Error from server (NotFound): secrets "owned" not found
exit 1
$ kubectl delete namespace theirs --timeout=120s
namespace "theirs" deleted
$ kubectl get namespace theirs
Error from server (NotFound): namespaces "theirs" not found
exit 1
