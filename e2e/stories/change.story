# Labels, annotations, an editor, and every type of patch.
$ kubectl label deployment web tier=front old=x
deployment.apps/web labeled
$ kubectl label deployment web tier=back
error: 'tier' already has a value (front), and --overwrite is false
exit 1
$ kubectl label deployment web tier=back old- --overwrite
deployment.apps/web modified
$ kubectl label deployment web --list
tier=back
$ kubectl annotate deployment web note=x
deployment.apps/web annotated
$ kubectl annotate deployment web note-
deployment.apps/web annotated
$ KUBE_EDITOR="sed -i s/tier:.back/tier:\ middle/" kubectl edit deployment web
deployment.apps/web edited
$ KUBE_EDITOR=true kubectl edit deployment web
Edit cancelled, no changes made.
$ KUBE_EDITOR="sed -i s/replicas:.3/replicas:\ -1/" kubectl edit deployment web 2>&1 | sed 's/kubectl-edit-.*/kubectl-edit/'
error: deployments.apps "web" is invalid
A copy of your changes has been stored to "/tmp/kubectl-edit
error: Edit cancelled, no valid changes were saved.
$ rm -f /tmp/kubectl-edit-*.yaml
$ kubectl rollout pause deployment/web
deployment.apps/web paused
$ kubectl patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"},{"name":"B","value":"2"}]}]}}}}'
deployment.apps/web patched
$ kubectl patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","$patch":"delete"}]}]}}}}'
deployment.apps/web patched
$ kubectl get deployment web -o jsonpath='{.spec.template.spec.containers[0].env}'
[{"name":"B","value":"2"}]
$ kubectl patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"$patch":"replace"},{"name":"C","value":"3"}]}]}}}}'
deployment.apps/web patched
$ kubectl get deployment web -o jsonpath='{.spec.template.spec.containers[0].env}'
[{"name":"C","value":"3"}]
$ kubectl patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"web","env":null}]}}}}'
deployment.apps/web patched
$ kubectl patch deployment web -p '{"spec":{"minReadySeconds":0}}'
deployment.apps/web patched (no change)
$ kubectl rollout resume deployment/web
deployment.apps/web resumed
$ kubectl patch deployment web --type=json -p '[{"op":"test","path":"/spec/replicas","value":3},{"op":"add","path":"/metadata/labels/json","value":"y"}]'
deployment.apps/web patched
$ kubectl patch deployment web --type=json -p '[{"op":"test","path":"/spec/replicas","value":9}]'
The request is invalid: the server rejected our request due to an error in our request
exit 1
$ kubectl patch deployment web --type=merge -p '{"metadata":{"labels":{"json":null}}}'
deployment.apps/web patched
$ kubectl patch deployment web --subresource=scale --type=merge -p '{"spec":{"replicas":3}}'
scale.autoscaling/web patched[..]
$ kubectl get deployment web -o jsonpath='{.metadata.labels}'
{"tier":"middle"}
# A condition without a time holds up nobody: other Services still get their endpoints.
$ kubectl create service clusterip odd --tcp=80
service/odd created
$ kubectl patch service odd --subresource=status --type=merge -p '{"status":{"conditions":[{"type":"T","status":"True","reason":"R","message":"","lastTransitionTime":null}]}}'
service/odd patched
$ kubectl create service clusterip even --tcp=80
service/even created
~ kubectl get endpointslices -l kubernetes.io/service-name=even -o name | cut -d- -f1
endpointslice.discovery.k8s.io/even
$ kubectl delete service odd even -o name
service/odd
service/even
