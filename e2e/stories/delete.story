# Objects go with their dependents before, after, or without them.
$ kubectl apply -f manifests/gone.yaml
deployment.apps/gone created
$ kubectl rollout status deployment/gone --timeout=60s | tail -1
deployment "gone" successfully rolled out
$ kubectl delete deployment gone --cascade=orphan
deployment.apps "gone" deleted from default namespace
$ kubectl get replicasets,pods -l app=gone -o name | cut -d- -f1
replicaset.apps/gone
pod/gone
pod/gone
$ kubectl get replicasets -l app=gone -o jsonpath='{.items[*].metadata.ownerReferences}'
$ kubectl delete replicasets -l app=gone --cascade=foreground
replicaset.apps "gone-[..]" deleted from default namespace
$ kubectl get replicasets,pods -l app=gone
No resources found in default namespace.
$ kubectl apply -f manifests/gone.yaml
deployment.apps/gone created
$ kubectl rollout status deployment/gone --timeout=60s | tail -1
deployment "gone" successfully rolled out
$ kubectl delete deployment gone --cascade=background
deployment.apps "gone" deleted from default namespace
$ kubectl wait --for=delete pod -l app=gone --timeout=60s >/dev/null
$ kubectl get replicasets,pods -l app=gone
No resources found in default namespace.
$ kubectl create namespace story
namespace/story created
$ kubectl -n story create configmap c --from-literal=a=b
configmap/c created
$ kubectl -n story get configmap c -o jsonpath='{.data.a}'
b
$ kubectl delete namespace story
namespace "story" deleted
$ kubectl delete configmap nothing
Error from server (NotFound): configmaps "nothing" not found
exit 1
$ kubectl delete configmap nothing --ignore-not-found
