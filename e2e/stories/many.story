# 200 pods in parallel batches come and go.
$ kubectl apply -f manifests/many.yaml
replicaset.apps/many created
$ kubectl scale replicaset many --replicas=100
replicaset.apps/many scaled
~ kubectl get replicaset many -o jsonpath='{.status.readyReplicas}'
100
$ kubectl scale replicaset many --replicas=0
replicaset.apps/many scaled
~ kubectl get pods -l app=many
No resources found in default namespace.
$ kubectl scale replicaset many --replicas=100
replicaset.apps/many scaled
~ kubectl get replicaset many -o jsonpath='{.status.readyReplicas}'
100
$ kubectl delete replicaset many --cascade=foreground
replicaset.apps "many" deleted from default namespace
$ kubectl get pods -l app=many
No resources found in default namespace.
