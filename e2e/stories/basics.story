# A cluster of three nodes, and a Deployment on it.
$ kubectl get nodes
NAME   STATUS   ROLES    AGE   VERSION
n1     Ready    <none>   [..]   v1.37.2+trimtab-0.1.0
n2     Ready    <none>   [..]   v1.37.2+trimtab-0.1.0
n3     Ready    <none>   [..]   v1.37.2+trimtab-0.1.0
