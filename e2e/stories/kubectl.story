# What people do with kubectl every day.
$ kubectl apply -f manifests/web.yaml
deployment.apps/web created
service/web created
$ kubectl rollout status deployment/web --timeout=60s | tail -1
deployment "web" successfully rolled out
$ kubectl get deployment web
NAME   READY   UP-TO-DATE   AVAILABLE   AGE
web    3/3     3            3           [..]
$ kubectl get deployment,service web -o name
deployment.apps/web
service/web
$ kubectl apply -f manifests/web.yaml
deployment.apps/web unchanged
service/web unchanged
$ kubectl diff -f manifests/web.yaml
$ sed 's/replicas: 3/replicas: 5/' manifests/web.yaml | kubectl apply --server-side --field-manager=other -f - 2>&1 | grep conflict:
error: Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas
$ kubectl label deployment web tier=front
deployment.apps/web labeled
$ kubectl annotate deployment web note=x
deployment.apps/web annotated
$ kubectl scale deployment web --replicas=4
deployment.apps/web scaled
~ kubectl get deployment web -o jsonpath='{.status.availableReplicas}'
4
$ kubectl scale deployment web --replicas=3
deployment.apps/web scaled
$ kubectl patch deployment web -p '{"spec":{"minReadySeconds":0}}'
deployment.apps/web patched (no change)
$ kubectl patch deployment web --type=json -p '[{"op":"add","path":"/metadata/labels/json","value":"y"}]'
deployment.apps/web patched
$ kubectl patch deployment web --type=merge -p '{"metadata":{"labels":{"json":null}}}'
deployment.apps/web patched
$ kubectl set env deployment/web ROUND=one
deployment.apps/web env updated
$ kubectl rollout status deployment/web --timeout=60s | tail -1
deployment "web" successfully rolled out
$ kubectl rollout history deployment/web | grep none
1         <none>
2         <none>
$ kubectl rollout undo deployment/web 2>&1 | grep -v Warning
deployment.apps/web rolled back
$ kubectl rollout status deployment/web --timeout=60s | tail -1
deployment "web" successfully rolled out
$ kubectl wait --for=condition=Available deployment/web --timeout=30s
deployment.apps/web condition met
$ kubectl explain deployment.spec.replicas | head -5
GROUP:      apps
KIND:       Deployment
VERSION:    v1
FIELD: replicas <integer>
...
$ kubectl api-resources --api-group=apps --no-headers | awk '{print $1}'
controllerrevisions
daemonsets
deployments
replicasets
statefulsets
$ kubectl auth can-i create pods
yes
$ kubectl create token default | cut -c1-2
ey
$ kubectl create namespace story
namespace/story created
$ kubectl -n story create configmap c --from-literal=a=b
configmap/c created
$ kubectl -n story get configmap c -o jsonpath='{.data.a}'
b
$ kubectl delete namespace story
namespace "story" deleted
