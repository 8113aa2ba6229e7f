# After an agent came back: every node is Ready and every pod runs, unchanged.
~ kubectl get nodes --no-headers | awk '{print $1, $2}'
n1 Ready
n2 Ready
n3 Ready
~ kubectl get deployment web -o jsonpath='{.status.availableReplicas}'
3
