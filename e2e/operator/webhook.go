package main

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const most = 5

// Webhook gives a Widget its defaults and refuses those that ask for too much.
type Webhook struct{}

// Default sets one replica.
func (Webhook) Default(_ context.Context, widget *Widget) error {
	if widget.Spec.Replicas == nil {
		one := int32(1)
		widget.Spec.Replicas = &one
	}
	return nil
}

func check(widget *Widget) (admission.Warnings, error) {
	if replicas(widget) > most {
		return nil, fmt.Errorf("spec.replicas: %d is more than %d", replicas(widget), most)
	}
	if replicas(widget) == 0 {
		return admission.Warnings{"spec.replicas: 0 keeps nothing"}, nil
	}
	return nil, nil
}

// ValidateCreate checks a new Widget.
func (Webhook) ValidateCreate(_ context.Context, widget *Widget) (admission.Warnings, error) {
	return check(widget)
}

// ValidateUpdate checks a changed one.
func (Webhook) ValidateUpdate(_ context.Context, _, widget *Widget) (admission.Warnings, error) {
	return check(widget)
}

// ValidateDelete lets every Widget go.
func (Webhook) ValidateDelete(context.Context, *Widget) (admission.Warnings, error) {
	return nil, nil
}
