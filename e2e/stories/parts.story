# API server, controllers, scheduler, DNS and node agent, each a process of its own, make a cluster.
~ kubectl get nodes --no-headers | awk '{print $1, $2}'
n2 Ready
$ kubectl apply -f manifests/web.yaml
deployment.apps/web created
service/web created
$ kubectl rollout status deployment/web --timeout=60s | tail -1
deployment "web" successfully rolled out
$ kubectl apply -f manifests/box.yaml
pod/box created
$ kubectl wait --for=condition=Ready pod/box --timeout=60s
pod/box condition met
# The cluster's DNS is a pod like others, and may come up after them.
~ kubectl exec box -- wget -qO- http://web.default.svc.cluster.local/hostname | cut -d- -f1
web
~ busybox nslookup web.default.svc.cluster.local $NODE_IP:5353 | grep -c '^Address: 10.96'
1
$ kubectl get leases -n kube-system -o name
lease.coordination.k8s.io/kube-controller-manager
lease.coordination.k8s.io/kube-scheduler
$ trimtab get nodes
NAME   STATUS   ROLES    AGE   VERSION
n2     Ready    <none>   [..]   v1.37.2+trimtab-0.1.0
$ kubectl delete pod box --now
pod "box" deleted from default namespace
