// A native search field with its label; it tells what is in it when the reader pauses.
const PAUSE = 200; // milliseconds

export default {
  template: `
    <label class="k-field">
      <span>{{ label }}</span>
      <input type="search" v-model="text" :placeholder="hint" autocomplete="off" spellcheck="false" @input="tell" />
    </label>
  `,
  props: { label: String, hint: String, start: String },
  emits: ["search"],
  data() {
    return { text: this.start };
  },
  methods: {
    tell() {
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.$emit("search", this.text), PAUSE);
    },
  },
  beforeUnmount() {
    clearTimeout(this.waiting);
  },
};
