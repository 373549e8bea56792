import {
  createTheme,
  localStorageColorSchemeManager,
  Modal,
  PasswordInput,
  Select,
  Textarea,
  TextInput,
} from "@mantine/core";

/** The scheme follows the system until somebody chooses; scheme.js reads the same key before the first paint. */
export const schemeManager = localStorageColorSchemeManager({ key: "cordon-color-scheme" });

/** A nonce for style elements, when the server's page carries one. */
export function styleNonce(): string {
  return document.querySelector<HTMLMetaElement>('meta[name="csp-nonce"]')?.content ?? "";
}

export const theme = createTheme({
  cursorType: "pointer",
  focusRing: "auto",
  autoContrast: false,
  components: {
    // The page itself never scrolls, so there is nothing to lock.
    Modal: Modal.extend({
      defaultProps: {
        lockScroll: false,
        centered: true,
        radius: 10,
        padding: 16,
        closeButtonProps: { "aria-label": "Close" },
        transitionProps: { duration: 140, transition: "fade" },
      },
    }),
    TextInput: TextInput.extend({ defaultProps: { size: "sm" } }),
    PasswordInput: PasswordInput.extend({ defaultProps: { size: "sm" } }),
    Textarea: Textarea.extend({ defaultProps: { size: "sm", autosize: false } }),
    Select: Select.extend({ defaultProps: { size: "sm", allowDeselect: false, checkIconPosition: "right" } }),
  },
});
